//! What a component weighs: bounds on what compiling it can cost (measured compile bombs: one 884 KB function 39 s, a
//! 192 KB br_table 7.4 s, 20,000 tiny functions 4.9 s and 261 MB, 200 loops around a change of 999 locals 62 s).

use core::fmt;
use std::collections::VecDeque;

use forge_contract::limits::MEMORY_BYTES_MAX;
use wasmparser::{FunctionBody, MemoryType, Operator, Payload, SectionLimited, TypeRef};

use super::{AdmitError, invalid};

/// A limit on a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Core modules.
    Modules,
    /// Depth of components in components.
    Nesting,
    /// Functions of all modules.
    Functions,
    /// Bytes of one function's body.
    BodyBytes,
    /// Locals of one function.
    Locals,
    /// Locals of all functions.
    LocalsTotal,
    /// Parameters of a core function type.
    Params,
    /// Results of a core function type.
    Results,
    /// Targets of one `br_table`: compile time is quadratic in them.
    BranchTargets,
    /// Depth of blocks in one function times its parameters and locals: where control comes together, the compiler must
    /// merge each of them.
    Merges,
    /// Largest memory a module declares, bytes.
    MemoryBytes,
    /// Elements of a table.
    TableElements,
    /// Exports that one module says it has: the validator makes room for them before it reads the first.
    Exports,
}

impl Limit {
    /// The largest value admitted.
    #[must_use]
    pub const fn max(self) -> u64 {
        match self {
            Self::Modules => 16,
            Self::Nesting => 8,
            Self::Functions => 20_000,
            Self::BodyBytes => 128 << 10,
            Self::Locals => 1_000,
            Self::LocalsTotal => 200_000,
            Self::Params => 100,
            Self::Results => 16,
            Self::BranchTargets => 4_096,
            // Loops around a change of every local: 99,900 take the compiler 1.2 s, 199,800 take it 62 s. All functions of
            // mc@1 together have 17,000.
            Self::Merges => 100_000,
            Self::MemoryBytes => MEMORY_BYTES_MAX,
            Self::TableElements => 10_000,
            Self::Exports => 20_000,
        }
    }

    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Modules => ("core modules", "link them into fewer"),
            Self::Nesting => ("levels of nested components", "compose the component flatter"),
            Self::Functions => ("functions", "build for size, with link-time optimisation"),
            Self::BodyBytes => ("bytes in one function body", "split the function or inline less"),
            Self::Locals => ("locals in one function", "split the function"),
            Self::LocalsTotal => ("locals in all functions", "build for size"),
            Self::Params => ("parameters of a function type", "pass a pointer"),
            Self::Results => ("results of a function type", "pass a pointer"),
            Self::BranchTargets => ("targets of one br_table", "split the switch"),
            Self::Merges => ("levels of nested blocks times locals in one function", "nest less deeply"),
            Self::MemoryBytes => ("bytes of declared memory", "link with --max-memory of at most 536870912"),
            Self::TableElements => ("elements of a table", "declare a maximum"),
            Self::Exports => ("exports of a core module", "export what the component needs alone"),
        }
    }
}

/// A component is too heavy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitError {
    /// The limit.
    pub limit: Limit,
    /// What was found; `None` where no maximum is declared.
    pub found: Option<u64>,
    /// Where, unless the whole component is to blame.
    pub place: Option<Place>,
}

/// A core module of the component, and perhaps a function of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Which core module, from 0, in the order of the file.
    pub module: u64,
    /// Which function, in the numbering of the module, imports first.
    pub function: Option<u64>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.function {
            Some(function) => write!(f, "function {function} of core module {}: ", self.module),
            None => write!(f, "core module {}: ", self.module),
        }
    }
}

impl std::error::Error for LimitError {}

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, fix) = self.limit.words();
        let max = self.limit.max();
        if let Some(place) = self.place {
            place.fmt(f)?;
        }
        match self.found {
            Some(found) => write!(f, "{found} {what}, at most {max} are admitted; {fix}"),
            None => write!(f, "no maximum of {what} is declared, one of at most {max} is needed; {fix}"),
        }
    }
}

fn at_most(limit: Limit, found: u64) -> Result<(), LimitError> {
    if found <= limit.max() { Ok(()) } else { Err(LimitError { limit, found: Some(found), place: None }) }
}

fn declared(limit: Limit, maximum: Option<u64>) -> Result<(), LimitError> {
    at_most(limit, maximum.ok_or(LimitError { limit, found: None, place: None })?)
}

/// A section may not claim more items than it has bytes: the validator makes room for them before it reads the first.
fn claims(payload: &Payload<'_>) -> Result<(), AdmitError> {
    match payload {
        Payload::TypeSection(section) => claim(section),
        Payload::ImportSection(section) => claim(section),
        Payload::FunctionSection(section) => claim(section),
        Payload::TableSection(section) => claim(section),
        Payload::MemorySection(section) => claim(section),
        Payload::TagSection(section) => claim(section),
        Payload::GlobalSection(section) => claim(section),
        Payload::ExportSection(section) => claim(section),
        Payload::ElementSection(section) => claim(section),
        Payload::DataSection(section) => claim(section),
        Payload::InstanceSection(section) => claim(section),
        Payload::CoreTypeSection(section) => claim(section),
        Payload::ComponentInstanceSection(section) => claim(section),
        Payload::ComponentAliasSection(section) => claim(section),
        Payload::ComponentTypeSection(section) => claim(section),
        Payload::ComponentCanonicalSection(section) => claim(section),
        Payload::ComponentImportSection(section) => claim(section),
        Payload::ComponentExportSection(section) => claim(section),
        _ => Ok(()),
    }
}

fn claim<T>(section: &SectionLimited<'_, T>) -> Result<(), AdmitError> {
    let (count, range) = (section.count(), section.range());
    let bytes = range.end.saturating_sub(range.start);
    if u64::from(count) <= bytes as u64 {
        return Ok(());
    }
    Err(AdmitError::Invalid { reason: format!("a section of {bytes} bytes claims {count} items"), at: range.start })
}

/// Running sums over a component.
#[derive(Debug, Default)]
pub struct Weight {
    modules: u64,
    functions: u64,
    locals: u64,
    /// Functions of the present module so far, imports included.
    function: u64,
    /// Parameters of each type of the present module; `None` for what is no function.
    types: Vec<Option<u64>>,
    /// Parameters of the present module's own functions whose bodies are still to come.
    params: VecDeque<u64>,
}

impl Weight {
    /// Adds one payload at a depth of nesting.
    pub fn add(&mut self, payload: &Payload<'_>, depth: usize) -> Result<(), AdmitError> {
        claims(payload)?;
        self.weigh(payload, depth).map_err(|error| match error {
            AdmitError::Limit(error) => {
                AdmitError::Limit(LimitError { place: self.place(payload, error.limit), ..error })
            }
            other => other,
        })
    }

    /// What a limit was passed by.
    fn place(&self, payload: &Payload<'_>, limit: Limit) -> Option<Place> {
        let whole = matches!(limit, Limit::Modules | Limit::Nesting | Limit::Functions | Limit::LocalsTotal);
        let module = self.modules.checked_sub(1).filter(|_| !whole)?;
        let function = matches!(payload, Payload::CodeSectionEntry(_)).then(|| self.function.saturating_sub(1));
        Some(Place { module, function })
    }

    fn weigh(&mut self, payload: &Payload<'_>, depth: usize) -> Result<(), AdmitError> {
        match payload {
            Payload::ModuleSection { .. } => {
                self.modules += 1;
                (self.function, self.types, self.params) = (0, Vec::new(), VecDeque::new());
                at_most(Limit::Modules, self.modules)?;
            }
            Payload::ComponentSection { .. } => at_most(Limit::Nesting, depth as u64 + 1)?,
            Payload::TypeSection(types) => {
                for group in types.clone() {
                    for ty in group.map_err(|e| invalid(&e))?.types() {
                        let wasmparser::CompositeInnerType::Func(ty) = &ty.composite_type.inner else {
                            self.types.push(None);
                            continue;
                        };
                        at_most(Limit::Params, ty.params().len() as u64)?;
                        at_most(Limit::Results, ty.results().len() as u64)?;
                        self.types.push(Some(ty.params().len() as u64));
                    }
                }
            }
            Payload::ExportSection(exports) => at_most(Limit::Exports, exports.count().into())?,
            Payload::ImportSection(imports) => {
                for import in imports.clone().into_imports() {
                    match import.map_err(|e| invalid(&e))?.ty {
                        TypeRef::Memory(memory) => check_memory(&memory)?,
                        TypeRef::Table(table) => declared(Limit::TableElements, table.maximum)?,
                        TypeRef::Func(_) | TypeRef::FuncExact(_) => self.function += 1,
                        _ => {}
                    }
                }
            }
            Payload::MemorySection(memories) => {
                for memory in memories.clone() {
                    check_memory(&memory.map_err(|e| invalid(&e))?)?;
                }
            }
            Payload::TableSection(tables) => {
                for table in tables.clone() {
                    declared(Limit::TableElements, table.map_err(|e| invalid(&e))?.ty.maximum)?;
                }
            }
            Payload::FunctionSection(functions) => {
                for ty in functions.clone() {
                    // One type more than there are is for the validator to say.
                    let ty = usize::try_from(ty.map_err(|e| invalid(&e))?).ok();
                    self.params.push_back(ty.and_then(|ty| self.types.get(ty).copied()).flatten().unwrap_or(0));
                    // As many as may be in all modules; the code section tells how many there are.
                    at_most(Limit::Functions, self.params.len() as u64)?;
                }
            }
            Payload::CodeSectionStart { count, .. } => {
                self.functions += u64::from(*count);
                at_most(Limit::Functions, self.functions)?;
            }
            Payload::CodeSectionEntry(body) => {
                self.function += 1;
                self.body(body)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn body(&mut self, body: &FunctionBody<'_>) -> Result<(), AdmitError> {
        let range = body.range();
        at_most(Limit::BodyBytes, range.end.saturating_sub(range.start) as u64)?;
        let mut locals = 0u64;
        for group in body.get_locals_reader().map_err(|e| invalid(&e))? {
            locals = locals.saturating_add(u64::from(group.map_err(|e| invalid(&e))?.0));
        }
        at_most(Limit::Locals, locals)?;
        self.locals += locals;
        at_most(Limit::LocalsTotal, self.locals)?;
        let mut operators = body.get_operators_reader().map_err(|e| invalid(&e))?;
        let (mut depth, mut deepest) = (0u64, 0u64);
        while !operators.eof() {
            match operators.read().map_err(|e| invalid(&e))? {
                Operator::BrTable { targets } => at_most(Limit::BranchTargets, u64::from(targets.len()))?,
                Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } => {
                    depth += 1;
                    deepest = deepest.max(depth);
                }
                Operator::End => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        let merged = locals + self.params.pop_front().unwrap_or(0);
        Ok(at_most(Limit::Merges, deepest.saturating_mul(merged))?)
    }
}

fn check_memory(memory: &MemoryType) -> Result<(), LimitError> {
    const PAGE: u64 = 65_536;
    declared(Limit::MemoryBytes, memory.maximum.map(|pages| pages.saturating_mul(PAGE)))
}
