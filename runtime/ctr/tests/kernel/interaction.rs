//! exec, attach, logs, terminals, signals.

use std::io::Read;
use std::process::{Command, Stdio};

use crate::world::{IMAGE, in_world};

#[test]
fn exec_runs_beside_the_first_process() {
    in_world(|world| {
        world.detached(&["--name", "host", "-e", "A=1"], "sleep 1000");
        let done = world.run(&["exec", "host", "sh", "-c", "echo $A $COLOR; echo no >&2; exit 9"]);
        assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (9, "1 blue\n", "no\n"));
        let typed = world.run_with(&["exec", "-i", "host", "cat"], b"through\n");
        assert_eq!(typed.out, "through\n");
        let options = [
            "exec",
            "-u",
            "web",
            "-w",
            "/tmp",
            "-e",
            "B=2",
            "host",
            "sh",
            "-c",
            "id -u; id -g; pwd; echo $B $HOME",
        ];
        assert_eq!(world.ok(&options), "33\n34\n/tmp\n2 /home\n");
        assert_eq!(world.run(&["exec", "host", "no-such-program"]).code, 127);
        assert_eq!(world.run(&["exec", "host", "/etc/passwd"]).code, 126);
        world.ok(&["exec", "-d", "host", "sh", "-c", "echo late > /late"]);
        world.until("the background's file", || world.run(&["exec", "host", "cat", "/late"]).out == "late\n");
        // Those whom a process leaves behind do not hold its caller.
        assert_eq!(world.ok(&["exec", "host", "sh", "-c", "sleep 500 & echo done"]), "done\n");
        assert_eq!(world.run(&["exec", "nowhere", "true"]).code, 1);
    });
}

#[test]
fn logs_are_what_was_written() {
    in_world(|world| {
        let script = "for i in 1 2 3; do echo line $i; done; echo error >&2; printf end";
        world.ok(&["run", "--name", "said", IMAGE, "sh", "-c", script]);
        let done = world.run(&["logs", "said"]);
        assert_eq!((done.out.as_str(), done.err.as_str()), ("line 1\nline 2\nline 3\nend", "error\n"));
        assert_eq!(world.ok(&["logs", "--tail", "1", "said"]), "end");
        assert_eq!(world.ok(&["logs", "--until", "1h", "said"]), "");
        assert_eq!(world.ok(&["logs", "--since", "1h", "--tail", "1", "said"]), "end");
        let line = world.ok(&["logs", "-t", "said"]);
        let (time, text) = line.split_once(' ').unwrap();
        assert!(time.ends_with('Z') && time.len() == 30 && text.starts_with("line 1\n"), "{line}");
    });
}

#[test]
fn logs_are_followed_to_the_end() {
    in_world(|world| {
        world.detached(
            &["--name", "talks"],
            "echo first; while ! test -e /go; do sleep 0.02; done; echo last; exit 3",
        );
        let mut following = world.start(&mut world.command(&["logs", "-f", "talks"]));
        let mut output = following.stdout.take().unwrap();
        let mut first = [0; 6];
        output.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"first\n");
        world.ok(&["exec", "talks", "touch", "/go"]);
        let mut rest = String::new();
        output.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "last\n");
        assert!(following.wait().unwrap().success());
    });
}

#[test]
fn a_terminal_is_a_terminal_and_its_keys_leave() {
    in_world(|world| {
        // script(1) gives the command a terminal of its own.
        let program = world.command(&["run", "-it", "--rm", "--name", "tty", IMAGE, "sh"]);
        let words: Vec<String> = std::iter::once(program.get_program())
            .chain(program.get_args())
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        let mut user = Command::new("script");
        user.args(["-q", "-e", "-c", &format!("stty rows 33 cols 99; {}", words.join(" ")), "/dev/null"]);
        let mut user = user.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut keys = user.stdin.take().unwrap();
        let mut screen = user.stdout.take().unwrap();
        let mut seen = String::new();
        let mut until = |text: &str| {
            let mut byte = [0];
            while !seen.contains(text) {
                assert_eq!(screen.read(&mut byte).unwrap(), 1, "the screen ended: {seen}");
                seen.push(byte[0] as char);
            }
        };
        use std::io::Write;
        until("# ");
        keys.write_all(b"stty size; test -t 0 && echo is-a-$((1+1))-tty\n").unwrap();
        until("33 99");
        until("is-a-2-tty");
        keys.write_all(b"\x10\x11").unwrap();
        until("read escape sequence");
        assert!(user.wait().unwrap().success());
        assert!(world.ok(&["ps"]).contains("tty"), "it goes on");
        world.ok(&["rm", "-f", "tty"]);
    });
}

#[test]
fn attach_joins_what_runs() {
    in_world(|world| {
        let script = "while read line; do echo got $line; test $line = end && exit 4; done";
        world.ok(&["run", "-d", "-i", "--name", "reads", IMAGE, "sh", "-c", script]);
        let done = world.run_with(&["attach", "reads"], b"one\nend\n");
        assert_eq!((done.code, done.out.as_str()), (4, "got one\ngot end\n"), "{done:?}");
        assert!(world.run(&["attach", "reads"]).err.contains("You cannot attach to a stopped container"));
    });
}

#[test]
fn signals_are_the_containers() {
    in_world(|world| {
        let script = "trap 'echo asked; exit 6' TERM; echo ready; while true; do sleep 0.02; done";
        let mut child = world.start(&mut world.command(&["run", "--rm", IMAGE, "sh", "-c", script]));
        let mut output = child.stdout.take().unwrap();
        let mut ready = [0; 6];
        output.read_exact(&mut ready).unwrap();
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let mut rest = String::new();
        output.read_to_string(&mut rest).unwrap();
        assert_eq!((rest.as_str(), child.wait().unwrap().code()), ("asked\n", Some(6)));
        assert_eq!(world.ok(&["ps", "-aq"]), "");
    });
}
