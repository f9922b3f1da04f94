//! What a program that has taken over a worker could do: it tries, inside the very cage of workers.
//!
//! The test program runs itself again as the prisoner, since a cage has no way out. The same from the inside of a
//! kernel's own code, in the real program, is `tests/cage` of the workspace.

fn main() {
    #[cfg(target_os = "linux")]
    linux::main();
}

#[cfg(target_os = "linux")]
mod linux {
    #![allow(clippy::unwrap_used, clippy::print_stdout, clippy::indexing_slicing, clippy::panic)]

    use std::process::{Command, Stdio};

    use forge_sandbox::cage::{self, Guard, NativeCode, ProcessLimits};

    const PRISONER: &str = "prisoner";

    pub fn main() {
        let args: Vec<String> = std::env::args().collect();
        if args.get(1).is_some_and(|arg| arg == PRISONER) {
            prisoner();
        } else {
            nothing_succeeds();
            println!("test nothing_succeeds ... ok");
        }
    }

    /// Tries everything, and says what came of it, a line each: name, result, error number.
    fn prisoner() {
        let limits = ProcessLimits { memory_bytes: 1 << 30, cpu_seconds: Some(10) };
        let mut report = cage::enter(limits);
        cage::close(&mut report, NativeCode::UntilSealed);
        let sealed = cage::seal();
        println!("cage {report}");
        println!("sound {}", report.is_sound() && sealed.is_ok());
        for (name, call, args) in attempts() {
            let (result, error) = attempt(call, args);
            println!("try {name} {result} {error}");
        }
        // Beyond system calls: what the standard library would do.
        println!("try read-file {}", outcome(std::fs::read("/etc/passwd").is_ok()));
        println!("try write-file {}", outcome(std::fs::write("/tmp/forge-cage-test", b"x").is_ok()));
        println!("try connect {}", outcome(std::net::TcpStream::connect("127.0.0.1:22").is_ok()));
        println!("try thread {}", outcome(std::thread::Builder::new().spawn(|| {}).is_ok()));
        println!("try run {}", outcome(Command::new("/bin/true").status().is_ok()));
    }

    fn outcome(succeeded: bool) -> &'static str {
        if succeeded { "0 0" } else { "-1 -" }
    }

    #[expect(unsafe_code, reason = "a hostile program makes raw system calls")]
    fn attempt(call: i64, args: [usize; 5]) -> (i64, i32) {
        // SAFETY: every attempt either fails or is reported as an escape; pointers are null or to static text.
        let result = unsafe { libc::syscall(call, args[0], args[1], args[2], args[3], args[4]) };
        (result, std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
    }

    fn attempts() -> Vec<(&'static str, i64, [usize; 5])> {
        let path = c"/etc/passwd".as_ptr() as usize;
        let program = c"/bin/true".as_ptr() as usize;
        let here = libc::AT_FDCWD.cast_unsigned() as usize;
        let exec_write = (libc::PROT_WRITE | libc::PROT_EXEC) as usize;
        let private = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize;
        let shared = (libc::MAP_SHARED | libc::MAP_ANONYMOUS) as usize;
        vec![
            ("openat", libc::SYS_openat, [here, path, 0, 0, 0]),
            ("openat2", libc::SYS_openat2, [here, path, 0, 24, 0]),
            ("statx", libc::SYS_statx, [here, path, 0, 0, 0]),
            ("readlinkat", libc::SYS_readlinkat, [here, path, 0, 0, 0]),
            ("unlinkat", libc::SYS_unlinkat, [here, path, 0, 0, 0]),
            ("memfd_create", libc::SYS_memfd_create, [path, 0, 0, 0, 0]),
            ("socket-inet", libc::SYS_socket, [libc::AF_INET as usize, libc::SOCK_STREAM as usize, 0, 0, 0]),
            ("socket-unix", libc::SYS_socket, [libc::AF_UNIX as usize, libc::SOCK_STREAM as usize, 0, 0, 0]),
            ("socket-netlink", libc::SYS_socket, [libc::AF_NETLINK as usize, libc::SOCK_RAW as usize, 0, 0, 0]),
            ("socketpair", libc::SYS_socketpair, [libc::AF_UNIX as usize, libc::SOCK_STREAM as usize, 0, 0, 0]),
            ("execve", libc::SYS_execve, [program, 0, 0, 0, 0]),
            ("execveat", libc::SYS_execveat, [here, program, 0, 0, 0]),
            ("clone", libc::SYS_clone, [libc::SIGCHLD as usize, 0, 0, 0, 0]),
            ("clone3", libc::SYS_clone3, [0, 88, 0, 0, 0]),
            ("unshare", libc::SYS_unshare, [libc::CLONE_NEWUSER as usize, 0, 0, 0, 0]),
            ("setns", libc::SYS_setns, [0, 0, 0, 0, 0]),
            ("ptrace", libc::SYS_ptrace, [libc::PTRACE_TRACEME as usize, 0, 0, 0, 0]),
            ("process_vm_readv", libc::SYS_process_vm_readv, [1, 0, 0, 0, 0]),
            ("kill", libc::SYS_kill, [1, 0, 0, 0, 0]),
            ("pidfd_open", libc::SYS_pidfd_open, [1, 0, 0, 0, 0]),
            ("setuid", libc::SYS_setuid, [0, 0, 0, 0, 0]),
            ("setgid", libc::SYS_setgid, [0, 0, 0, 0, 0]),
            ("capset", libc::SYS_capset, [0, 0, 0, 0, 0]),
            ("prctl", libc::SYS_prctl, [libc::PR_SET_DUMPABLE as usize, 1, 0, 0, 0]),
            ("prlimit64", libc::SYS_prlimit64, [0, libc::RLIMIT_NOFILE as usize, 0, 0, 0]),
            ("mount", libc::SYS_mount, [path, path, 0, 0, 0]),
            ("chroot", libc::SYS_chroot, [path, 0, 0, 0, 0]),
            ("pivot_root", libc::SYS_pivot_root, [path, path, 0, 0, 0]),
            ("bpf", libc::SYS_bpf, [0, 0, 0, 0, 0]),
            ("perf_event_open", libc::SYS_perf_event_open, [0, 0, 0, 0, 0]),
            ("io_uring_setup", libc::SYS_io_uring_setup, [8, 0, 0, 0, 0]),
            ("userfaultfd", libc::SYS_userfaultfd, [0, 0, 0, 0, 0]),
            ("keyctl", libc::SYS_keyctl, [0, 0, 0, 0, 0]),
            ("add_key", libc::SYS_add_key, [path, path, 0, 0, 0]),
            ("shmget", libc::SYS_shmget, [0, 4096, 0, 0, 0]),
            ("landlock_restrict_self", libc::SYS_landlock_restrict_self, [0, 0, 0, 0, 0]),
            ("seccomp", libc::SYS_seccomp, [1, 0, 0, 0, 0]),
            ("ioctl", libc::SYS_ioctl, [0, usize::try_from(libc::TIOCSTI).unwrap(), path, 0, 0]),
            ("dup", libc::SYS_dup, [0, 0, 0, 0, 0]),
            ("init_module", libc::SYS_init_module, [0, 0, 0, 0, 0]),
            ("reboot", libc::SYS_reboot, [0, 0, 0, 0, 0]),
            ("sethostname", libc::SYS_sethostname, [path, 1, 0, 0, 0]),
            ("clock_settime", libc::SYS_clock_settime, [0, 0, 0, 0, 0]),
            ("mmap-exec", libc::SYS_mmap, [0, 4096, libc::PROT_EXEC as usize, private, usize::MAX]),
            ("mmap-shared", libc::SYS_mmap, [0, 4096, libc::PROT_READ as usize, shared, usize::MAX]),
            ("mmap-write-exec", libc::SYS_mmap, [0, 4096, exec_write, private, usize::MAX]),
            ("tgkill-kill", libc::SYS_tgkill, [1, 1, libc::SIGKILL as usize, 0, 0]),
        ]
    }

    fn nothing_succeeds() {
        let output = Command::new(std::env::current_exe().unwrap())
            .arg(PRISONER)
            .env_clear()
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        println!("{}", text.lines().next().unwrap_or("the prisoner said nothing"));
        assert!(output.status.success(), "{:?}: {text}", output.status);
        let tries: Vec<&str> = text.lines().filter(|line| line.starts_with("try ")).collect();
        assert_eq!(tries.len(), attempts().len() + 5, "{text}");
        if !text.contains("sound true") {
            // Said aloud and not passed over: this machine cannot cage, and agents on it refuse untrusted kernels.
            println!("this machine cannot cage untrusted code; nothing to hold it to");
            return;
        }
        for line in tries {
            let words: Vec<&str> = line.split(' ').collect();
            assert_eq!(words[2], "-1", "escaped: {line}");
            let by_filter = libc::EPERM.to_string();
            assert!(words[3] == "-" || words[3] == by_filter, "failed, but not by the filter: {line}");
        }
        for guard in [Guard::NoNewPrivileges, Guard::ResourceLimits, Guard::NotDumpable, Guard::ParentDeath] {
            assert!(text.lines().next().unwrap().contains(guard.name()), "{text}");
        }
    }
}
