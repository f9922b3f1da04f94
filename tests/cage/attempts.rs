//! What the hijacked worker tries, and how the attempts are laid out in its memory.

use libc::c_long;

/// In place of an argument: what the call before gave.
pub const PREVIOUS: u64 = 0xfeed_face_feed_face;

/// What an attempt must end with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Must {
    /// The filter says no.
    Filtered,
    /// A limit says no.
    NoMemory,
    /// There is no such descriptor.
    NoDescriptor,
}

/// An argument of a system call.
#[derive(Clone, Debug)]
pub enum Arg {
    /// A number.
    Number(u64),
    /// The address of these bytes.
    Bytes(Vec<u8>),
    /// The address of an array of addresses of these texts, ended by a null.
    Array(Vec<Vec<u8>>),
}

/// One thing that is tried: calls in a row, of which the last one counts.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// What it is, for people.
    pub name: String,
    /// Number and arguments of each call.
    pub calls: Vec<(c_long, Vec<Arg>)>,
    /// How it must end.
    pub must: Must,
}

fn n(number: impl TryInto<i64>) -> Arg {
    Arg::Number(number.try_into().ok().unwrap_or_default().cast_unsigned())
}

fn text(text: &str) -> Arg {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    Arg::Bytes(bytes)
}

fn array(texts: &[&str]) -> Arg {
    Arg::Array(texts.iter().map(|text| [text.as_bytes(), b"\0"].concat()).collect())
}

fn zeros(bytes: usize) -> Arg {
    Arg::Bytes(vec![0; bytes])
}

/// `struct sockaddr_in` of a port of the loopback.
fn loopback(port: u16) -> Arg {
    let mut address = vec![0; 16];
    address[..2].copy_from_slice(&2_u16.to_ne_bytes());
    address[2..4].copy_from_slice(&port.to_be_bytes());
    address[4..8].copy_from_slice(&[127, 0, 0, 1]);
    Arg::Bytes(address)
}

struct List(Vec<Attempt>);

impl List {
    fn filtered(&mut self, name: &str, call: c_long, args: Vec<Arg>) {
        self.add(name, Must::Filtered, vec![(call, args)]);
    }

    fn add(&mut self, name: &str, must: Must, calls: Vec<(c_long, Vec<Arg>)>) {
        self.0.push(Attempt { name: name.into(), calls, must });
    }
}

/// All attempts. `agent` is the process that started the worker, `descriptor` one that it left open, `port` one of the
/// loopback where somebody listens.
pub fn attempts(agent: u32, descriptor: i32, port: u16) -> Vec<Attempt> {
    let mut list = List(Vec::new());
    files(&mut list, agent);
    network(&mut list, port);
    processes(&mut list, agent);
    rights(&mut list);
    memory(&mut list);
    machine(&mut list);
    list.add(
        "read a descriptor the parent left open",
        Must::NoDescriptor,
        vec![(libc::SYS_read, vec![n(descriptor), zeros(8), n(8)])],
    );
    list.add(
        "read any descriptor above the pipes",
        Must::NoDescriptor,
        vec![(libc::SYS_read, vec![n(3), zeros(8), n(8)])],
    );
    list.add(
        "write to any descriptor above the pipes",
        Must::NoDescriptor,
        vec![(libc::SYS_write, vec![n(3), zeros(8), n(8)])],
    );
    list.0
}

fn files(list: &mut List, agent: u32) {
    let here = || n(libc::AT_FDCWD);
    let write = libc::O_WRONLY | libc::O_CREAT;
    list.filtered("open a file to read", libc::SYS_openat, vec![here(), text("/etc/passwd"), n(0), n(0)]);
    list.filtered("open a file to write", libc::SYS_openat, vec![here(), text("/tmp/forge"), n(write), n(0o600)]);
    list.filtered("open, the old call", libc::SYS_open, vec![text("/etc/passwd"), n(0), n(0)]);
    list.filtered("openat2", libc::SYS_openat2, vec![here(), text("/etc/passwd"), zeros(24), n(24)]);
    list.filtered("creat", libc::SYS_creat, vec![text("/tmp/forge"), n(0o600)]);
    let proc = |name: &str| text(&format!("/proc/{agent}/{name}"));
    list.filtered("read the agent's environment", libc::SYS_openat, vec![here(), proc("environ"), n(0), n(0)]);
    list.filtered("write the agent's memory", libc::SYS_openat, vec![here(), proc("mem"), n(libc::O_RDWR), n(0)]);
    list.filtered("read its own environment", libc::SYS_openat, vec![here(), text("/proc/self/environ"), n(0), n(0)]);
    list.filtered("list directories of processes", libc::SYS_openat, vec![here(), text("/proc"), n(0o200000), n(0)]);
    list.filtered("open /dev/mem", libc::SYS_openat, vec![here(), text("/dev/mem"), n(2), n(0)]);
    list.filtered("open /dev/kvm", libc::SYS_openat, vec![here(), text("/dev/kvm"), n(2), n(0)]);
    list.filtered("open /dev/shm", libc::SYS_openat, vec![here(), text("/dev/shm/forge"), n(write | 2), n(0o600)]);
    list.filtered("stat a file", libc::SYS_newfstatat, vec![here(), text("/etc/shadow"), zeros(144), n(0)]);
    list.filtered("read a link", libc::SYS_readlinkat, vec![here(), text("/proc/self/exe"), zeros(64), n(64)]);
    list.filtered("remove a file", libc::SYS_unlinkat, vec![here(), text("/tmp/forge"), n(0)]);
    list.filtered("rename a file", libc::SYS_renameat2, vec![here(), text("/tmp/a"), here(), text("/tmp/b"), n(0)]);
    list.filtered("make a directory", libc::SYS_mkdirat, vec![here(), text("/tmp/forge"), n(0o700)]);
    list.filtered("make a device", libc::SYS_mknodat, vec![here(), text("/tmp/mem"), n(0o20666), n(0x101)]);
    list.filtered("open by handle", libc::SYS_open_by_handle_at, vec![here(), zeros(8), n(0)]);
    list.filtered("watch files (inotify)", libc::SYS_inotify_init1, vec![n(0)]);
    list.filtered("watch files (fanotify)", libc::SYS_fanotify_init, vec![n(0), n(0)]);
    list.filtered("another root directory", libc::SYS_chroot, vec![text("/tmp")]);
    list.filtered("another working directory", libc::SYS_chdir, vec![text("/tmp")]);
    list.filtered("a file without a name", libc::SYS_memfd_create, vec![text("x"), n(0)]);
}

fn network(list: &mut List, port: u16) {
    let (stream, datagram, raw) = (libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_RAW);
    for (name, family, kind) in [
        ("a TCP socket", libc::AF_INET, stream),
        ("a UDP socket", libc::AF_INET, datagram),
        ("an IPv6 socket", libc::AF_INET6, stream),
        ("a UNIX socket", libc::AF_UNIX, stream),
        ("a netlink socket", libc::AF_NETLINK, raw),
        ("a packet socket", libc::AF_PACKET, raw),
        ("a socket of virtual machines", libc::AF_VSOCK, stream),
        ("a crypto socket", libc::AF_ALG, libc::SOCK_SEQPACKET),
    ] {
        list.filtered(name, libc::SYS_socket, vec![n(family), n(kind), n(0)]);
    }
    list.filtered("a pair of sockets", libc::SYS_socketpair, vec![n(libc::AF_UNIX), n(stream), n(0), zeros(8)]);
    list.filtered("connect to the loopback", libc::SYS_connect, vec![n(1), loopback(port), n(16)]);
    list.filtered("bind a port", libc::SYS_bind, vec![n(1), loopback(0), n(16)]);
    list.filtered("send a descriptor away", libc::SYS_sendmsg, vec![n(1), zeros(56), n(0)]);
}

fn processes(list: &mut List, agent: u32) {
    let program = || text("/bin/true");
    list.filtered("execve", libc::SYS_execve, vec![program(), array(&["true"]), array(&[])]);
    list.filtered("execveat", libc::SYS_execveat, vec![n(libc::AT_FDCWD), program(), array(&["true"]), array(&[])]);
    list.add(
        "execute a file without a name",
        Must::Filtered,
        vec![
            (libc::SYS_memfd_create, vec![text("x"), n(0)]),
            (libc::SYS_execveat, vec![Arg::Number(PREVIOUS), text(""), array(&[]), array(&[]), n(0x1000)]),
        ],
    );
    list.filtered("fork", libc::SYS_fork, vec![]);
    list.filtered("vfork", libc::SYS_vfork, vec![]);
    list.filtered("a process (clone)", libc::SYS_clone, vec![n(libc::SIGCHLD), n(0), n(0), n(0), n(0)]);
    list.filtered("a process (clone3)", libc::SYS_clone3, vec![zeros(88), n(88)]);
    list.filtered("trace the agent", libc::SYS_ptrace, vec![n(libc::PTRACE_ATTACH), n(agent), n(0), n(0)]);
    list.filtered("be traced", libc::SYS_ptrace, vec![n(libc::PTRACE_TRACEME), n(0), n(0), n(0)]);
    list.filtered("signal the agent", libc::SYS_kill, vec![n(agent), n(0)]);
    list.filtered("signal process 1", libc::SYS_kill, vec![n(1), n(0)]);
    list.filtered("abort the agent's thread", libc::SYS_tgkill, vec![n(agent), n(agent), n(libc::SIGABRT)]);
    list.filtered("signal a thread", libc::SYS_tkill, vec![n(agent), n(0)]);
    list.filtered("a handle on the agent", libc::SYS_pidfd_open, vec![n(agent), n(0)]);
    list.filtered("take the agent's descriptors", libc::SYS_pidfd_getfd, vec![n(0), n(0), n(0)]);
    let (local, remote) = (zeros(16), zeros(16));
    list.filtered(
        "read the agent's memory",
        libc::SYS_process_vm_readv,
        vec![n(agent), local.clone(), n(1), remote.clone(), n(1), n(0)],
    );
    list.filtered(
        "write the agent's memory at once",
        libc::SYS_process_vm_writev,
        vec![n(agent), local, n(1), remote, n(1), n(0)],
    );
    list.filtered("who is the parent", libc::SYS_getppid, vec![]);
    list.filtered("wait for others", libc::SYS_wait4, vec![n(-1), n(0), n(1), n(0)]);
    list.filtered("compare with other processes", libc::SYS_kcmp, vec![n(1), n(agent), n(0), n(0), n(0)]);
}

fn rights(list: &mut List) {
    for (name, flags) in [("user", libc::CLONE_NEWUSER), ("mount", libc::CLONE_NEWNS), ("network", libc::CLONE_NEWNET)]
    {
        list.filtered(&format!("a new {name} namespace"), libc::SYS_unshare, vec![n(flags)]);
    }
    list.filtered("enter a namespace", libc::SYS_setns, vec![n(0), n(0)]);
    list.filtered("mount", libc::SYS_mount, vec![text("none"), text("/tmp"), text("tmpfs"), n(0), n(0)]);
    list.filtered("unmount", libc::SYS_umount2, vec![text("/tmp"), n(0)]);
    list.filtered("pivot_root", libc::SYS_pivot_root, vec![text("/tmp"), text("/tmp")]);
    list.filtered("become root", libc::SYS_setuid, vec![n(0)]);
    list.filtered("become root's group", libc::SYS_setgid, vec![n(0)]);
    list.filtered("other groups", libc::SYS_setgroups, vec![n(0), n(0)]);
    list.filtered("capabilities", libc::SYS_capset, vec![zeros(8), zeros(24)]);
    list.filtered("be dumpable", libc::SYS_prctl, vec![n(libc::PR_SET_DUMPABLE), n(1), n(0), n(0), n(0)]);
    list.filtered("outlive the parent", libc::SYS_prctl, vec![n(libc::PR_SET_PDEATHSIG), n(0), n(0), n(0), n(0)]);
    list.filtered("another filter", libc::SYS_seccomp, vec![n(1), n(1), zeros(16)]);
    list.filtered("another Landlock domain", libc::SYS_landlock_create_ruleset, vec![zeros(24), n(24), n(0)]);
    list.filtered("raise a limit", libc::SYS_prlimit64, vec![n(0), n(7), Arg::Bytes(vec![0xff; 16]), n(0)]);
    list.filtered("raise a limit, the old call", libc::SYS_setrlimit, vec![n(7), Arg::Bytes(vec![0xff; 16])]);
    list.filtered("be more urgent", libc::SYS_setpriority, vec![n(0), n(0), n(-20)]);
    list.filtered("a session of its own", libc::SYS_setsid, vec![]);
    list.filtered("copy a descriptor", libc::SYS_dup, vec![n(0)]);
    list.filtered("type into the terminal (TIOCSTI)", libc::SYS_ioctl, vec![n(0), n(0x5412), text("x")]);
    list.filtered("change a descriptor", libc::SYS_fcntl, vec![n(0), n(0), n(0)]);
}

fn memory(list: &mut List) {
    let private = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let map = |bytes: i64, protection: i32, flags: i32| {
        (libc::SYS_mmap, vec![n(0), n(bytes), n(protection), n(flags), n(-1), n(0)])
    };
    let (read, write, execute) = (libc::PROT_READ, libc::PROT_WRITE, libc::PROT_EXEC);
    list.add("8 GiB of memory", Must::NoMemory, vec![map(8 << 30, read | write, private)]);
    let unwritten = map(8 << 30, libc::PROT_NONE, private | libc::MAP_NORESERVE);
    let write_it = (libc::SYS_mprotect, vec![Arg::Number(PREVIOUS), n(8_i64 << 30), n(read | write)]);
    list.add("8 GiB, reserved first", Must::NoMemory, vec![unwritten, write_it]);
    let shared = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    list.add("memory that no limit counts", Must::Filtered, vec![map(4096, read | write, shared)]);
    list.add("memory that is code", Must::Filtered, vec![map(4096, read | execute, private)]);
    list.add("memory to write and run", Must::Filtered, vec![map(4096, read | write | execute, private)]);
    let run_it = (libc::SYS_mprotect, vec![Arg::Number(PREVIOUS), n(4096), n(read | execute)]);
    list.add("write code, then run it", Must::Filtered, vec![map(4096, read | write, private), run_it]);
    let map_pipe = vec![n(0), n(4096), n(read), n(libc::MAP_SHARED), n(0), n(0)];
    list.add("map a descriptor", Must::Filtered, vec![(libc::SYS_mmap, map_pipe)]);
    list.filtered("lock memory", libc::SYS_mlockall, vec![n(3)]);
    list.filtered("handle page faults", libc::SYS_userfaultfd, vec![n(0)]);
    list.filtered("protection keys", libc::SYS_pkey_alloc, vec![n(0), n(0)]);
    list.filtered("shared memory (System V)", libc::SYS_shmget, vec![n(0), n(4096), n(0o1600)]);
    list.filtered("a semaphore (System V)", libc::SYS_semget, vec![n(0), n(1), n(0o1600)]);
    list.filtered("a message queue (System V)", libc::SYS_msgget, vec![n(0), n(0o1600)]);
    list.filtered("a message queue (POSIX)", libc::SYS_mq_open, vec![text("forge"), n(0o102), n(0o600), n(0)]);
}

fn machine(list: &mut List) {
    list.filtered(
        "a key of the kernel's keyring",
        libc::SYS_add_key,
        vec![text("user"), text("x"), text("y"), n(1), n(-1)],
    );
    list.filtered("keyctl", libc::SYS_keyctl, vec![n(0), n(-1), n(0)]);
    list.filtered("load a bpf program", libc::SYS_bpf, vec![n(5), zeros(120), n(120)]);
    list.filtered("count events", libc::SYS_perf_event_open, vec![zeros(120), n(0), n(-1), n(-1), n(0)]);
    list.filtered("io_uring", libc::SYS_io_uring_setup, vec![n(8), zeros(120)]);
    list.filtered("asynchronous IO", libc::SYS_io_setup, vec![n(8), zeros(8)]);
    list.filtered("load a module", libc::SYS_finit_module, vec![n(0), text(""), n(0)]);
    list.filtered("another kernel", libc::SYS_kexec_load, vec![n(0), n(0), n(0), n(0)]);
    list.filtered("restart the machine", libc::SYS_reboot, vec![n(0), n(0), n(0), n(0)]);
    list.filtered("set the clock", libc::SYS_clock_settime, vec![n(0), zeros(16)]);
    list.filtered("name the machine", libc::SYS_sethostname, vec![text("x"), n(1)]);
    list.filtered("read the kernel's log", libc::SYS_syslog, vec![n(3), zeros(64), n(64)]);
    list.filtered("ports of the machine", libc::SYS_iopl, vec![n(3)]);
    list.filtered("another personality", libc::SYS_personality, vec![n(0x0040_0000)]);
    list.filtered("swap", libc::SYS_swapon, vec![text("/tmp/x"), n(0)]);
    list.filtered("count processes (acct)", libc::SYS_acct, vec![n(0)]);
    list.filtered("a call of the 32-bit kind", 0x4000_0000 + 1, vec![n(1), n(0), n(0)]);
    list.filtered("a call that does not exist", 9999, vec![]);
}

/// All attempts as they lie in memory; offsets are from its beginning.
pub struct Image {
    /// Everything.
    pub bytes: Vec<u8>,
    /// Where the offsets of pointers stand.
    pub pointers_at: usize,
    /// Where they end.
    pub pointers_end: usize,
    /// Where, for each attempt, the offset and number of its calls stand.
    pub cases_at: usize,
}

impl Image {
    /// Lays them out: texts and structures, calls of seven words each, the table of attempts, the table of pointers.
    pub fn of(attempts: &[Attempt]) -> Self {
        let (mut bytes, mut pointers, mut cases) = (Vec::new(), Vec::new(), Vec::new());
        for attempt in attempts {
            let mut words = Vec::new();
            for (number, args) in &attempt.calls {
                let mut call = vec![(number.cast_unsigned(), false)];
                call.extend(args.iter().map(|arg| place(arg, &mut bytes, &mut pointers)));
                call.resize(7, (0, false));
                words.extend(call);
            }
            cases.push([bytes.len() as u64, attempt.calls.len() as u64]);
            for (word, is_pointer) in words {
                if is_pointer {
                    pointers.push(bytes.len() as u64);
                }
                bytes.extend(word.to_le_bytes());
            }
        }
        let cases_at = bytes.len();
        cases.iter().flatten().for_each(|word| bytes.extend(word.to_le_bytes()));
        let pointers_at = bytes.len();
        pointers.iter().for_each(|word| bytes.extend(word.to_le_bytes()));
        let pointers_end = bytes.len();
        Self { bytes, pointers_at, pointers_end, cases_at }
    }
}

/// The word of an argument, and whether it is an address.
fn place(arg: &Arg, bytes: &mut Vec<u8>, pointers: &mut Vec<u64>) -> (u64, bool) {
    match arg {
        Arg::Number(number) => (*number, false),
        Arg::Bytes(content) => (put(content, bytes), true),
        Arg::Array(texts) => {
            let texts: Vec<u64> = texts.iter().map(|text| put(text, bytes)).collect();
            let at = bytes.len() as u64;
            for text in texts {
                pointers.push(bytes.len() as u64);
                bytes.extend(text.to_le_bytes());
            }
            bytes.extend([0; 8]);
            (at, true)
        }
    }
}

/// Appends bytes and as many zeros as make them whole words; says where they are.
fn put(content: &[u8], bytes: &mut Vec<u8>) -> u64 {
    let at = bytes.len() as u64;
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    at
}
