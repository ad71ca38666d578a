//! What cannot be done, in docker's words and with docker's exit codes.

use crate::world::{IMAGE, in_world};

#[test]
fn what_cannot_run_says_why() {
    in_world(|world| {
        for (args, code, words) in [
            (&["run", "--rm", IMAGE, "no-such-program"][..], 127, "executable file not found in $PATH"),
            (&["run", "--rm", IMAGE, "/no/such"], 127, "no such file or directory"),
            (&["run", "--rm", IMAGE, "/etc/passwd"], 126, "permission denied"),
            (
                &["run", "--rm", "--pull", "never", "no/such:image", "true"],
                125,
                "No such image: no/such:image",
            ),
            (&["run", "--rm", "-m", "much", IMAGE, "true"], 125, "invalid size: 'much'"),
            (&["run", "--rm", "--network", "nowhere", IMAGE, "true"], 125, "network nowhere not found"),
            (&["run", "--rm", "--user", "nobody-here", IMAGE, "true"], 125, "nobody-here"),
            (&["run", "--rm", "-p", "x", IMAGE, "true"], 125, "invalid containerPort: x"),
            (&["run", "--bad-flag", IMAGE, "true"], 125, "--bad-flag"),
            (&["run", "--rm", "--name", "b@d", IMAGE, "true"], 125, "Invalid container name (b@d)"),
            (&["stop", "nowhere"], 1, "No such container: nowhere"),
            (&["logs", "nowhere"], 1, "No such container: nowhere"),
            (&["kill", "-s", "SIGNOTHING", "nowhere"], 1, "Invalid signal: SIGNOTHING"),
            (&["ps", "--filter", "colour=red"], 1, "invalid filter 'colour'"),
            (&["cp", "a", "b"], 1, "must specify at least one container source"),
            (&["run", "-it", "--rm", IMAGE, "sh"], 1, "the input device is not a TTY"),
        ] {
            let done = world.run(args);
            assert_eq!(done.code, code, "{args:?}: {done:?}");
            assert!(done.err.contains(words), "{args:?}: {done:?}");
        }
        assert_eq!(world.ok(&["ps", "-aq"]), "", "nothing of it stays");
    });
}

#[test]
fn names_and_states_are_held() {
    in_world(|world| {
        world.detached(&["--name", "one"], "sleep 1000");
        let done = world.run(&["run", "--name", "one", IMAGE, "true"]);
        assert_eq!(done.code, 125);
        assert!(done.err.contains("The container name \"/one\" is already in use by container"), "{done:?}");
        let done = world.run(&["rm", "one"]);
        assert!(done.code == 1 && done.err.contains("container is running"), "{done:?}");
        world.ok(&["create", "--name", "two", IMAGE, "true"]);
        for (args, words) in [
            (&["exec", "two", "true"][..], "is not running"),
            (&["kill", "two"], "is not running"),
            (&["top", "two"], "is not running"),
            (&["rename", "two", "one"], "is already in use"),
            (
                &["run", "--network", "container:two", IMAGE, "true"],
                "cannot join network of a non running container",
            ),
        ] {
            let done = world.run(args);
            assert!(done.code != 0 && done.err.contains(words), "{args:?}: {done:?}");
        }
        // One failure of many does not hold up the rest.
        let done = world.run(&["rm", "-f", "nowhere", "two", "one"]);
        assert_eq!(done.code, 0, "{done:?}");
    });
}

#[test]
fn every_command_explains_itself() {
    in_world(|world| {
        let commands = "run create start exec attach ps logs stop kill restart pause unpause rm prune wait inspect port rename \
                        top stats cp export diff commit";
        for command in commands.split_whitespace() {
            let done = world.run(&[command, "--help"]);
            let text = format!("{}{}", done.out, done.err);
            assert!(text.contains("Usage:") && text.lines().next().unwrap().len() > 10, "{command}: {text}");
        }
    });
}
