//! How bad agents choose when to lie.

use super::chance::Chance;
use super::kernel::{LIES, LIES_AGREED, truth};

/// A strategy. An agent does not know which of its shards are checks, and not what is accepted of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Lies this often in a million.
    Random(u32),
    /// So many clean answers, so many lies, and again from the start until caught.
    Strikes { clean: u64, lies: u64 },
    /// Clean answers, then lies alone.
    Sleeps(u64),
    /// Equal lies, told only where an accomplice holds the other copy or has told it.
    Careful,
    /// Equal lies in every shard after so many clean answers, whoever holds the other copy.
    Gambles(u64),
    /// The same answer to every shard, the same of all of them.
    Constant,
    /// Computes one shard and gives that answer for ever.
    Repeats,
}

impl core::fmt::Display for Strategy {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Random(1_000_000) => f.write_str("lies always"),
            Self::Random(ppm) => write!(f, "lies at {}", f64::from(*ppm) / 1e6),
            Self::Strikes { clean, lies: 1 } => write!(f, "strikes at {clean}"),
            Self::Strikes { clean, lies } => write!(f, "burst of {lies} at {clean}"),
            Self::Sleeps(clean) => write!(f, "sleeps to {clean}"),
            Self::Careful => f.write_str("clique, careful"),
            Self::Gambles(clean) => write!(f, "clique, gambles at {clean}"),
            Self::Constant => f.write_str("lazy, constant"),
            Self::Repeats => f.write_str("lazy, repeats"),
        }
    }
}

/// What a clique knows of a shard.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rumour {
    /// Members that have or had it.
    pub holders: u32,
    /// Whether one told the lie.
    pub lied: bool,
    /// Whether one told the truth.
    pub honest: bool,
}

/// What an agent knows of itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Career {
    /// Answers so far under this identity.
    pub answered: u64,
    /// What it said first.
    pub first: Option<u64>,
}

impl Strategy {
    /// Clean answers before the first lie, for the size of a run.
    pub fn patience(&self) -> u64 {
        match self {
            Self::Strikes { clean, .. } | Self::Sleeps(clean) | Self::Gambles(clean) => *clean,
            _ => 0,
        }
    }

    /// Whether accomplices give equal lies.
    pub fn is_alike(&self) -> bool {
        matches!(self, Self::Careful | Self::Gambles(_) | Self::Constant)
    }

    /// Whether two of them may give the same wrong answer, be it by chance.
    pub fn may_agree(&self) -> bool {
        self.is_alike() || *self == Self::Repeats
    }

    /// What it says of a shard.
    pub fn says(&self, shard: u32, career: &mut Career, rumour: &mut Rumour, chance: &mut Chance) -> u64 {
        let true_value = truth(shard);
        let place = career.answered;
        career.answered += 1;
        let own = |lies: bool, chance: &mut Chance| {
            if lies { LIES + chance.from(0, LIES - 1) } else { true_value }
        };
        let agreed = |lies: bool| if lies { LIES_AGREED + true_value } else { true_value };
        let said = match self {
            Self::Random(ppm) => {
                let lies = chance.ppm(*ppm);
                own(lies, chance)
            }
            Self::Strikes { clean, lies } => own(place % (clean + lies) >= *clean, chance),
            Self::Sleeps(clean) => own(place >= *clean, chance),
            Self::Careful => agreed(rumour.lied || (rumour.holders >= 2 && !rumour.honest)),
            Self::Gambles(clean) => agreed(rumour.lied || (place >= *clean && !rumour.honest)),
            Self::Constant => LIES_AGREED,
            Self::Repeats => *career.first.get_or_insert(true_value),
        };
        (rumour.lied, rumour.honest) = (rumour.lied || said != true_value, rumour.honest || said == true_value);
        said
    }
}
