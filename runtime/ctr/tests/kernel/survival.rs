//! Commands, shims and machines that go down.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime::sys::failpoint::{POINTS, VARIABLE};

use crate::world::{IMAGE, in_world};

#[test]
fn the_shim_cleans_up_when_nobody_is_there() {
    in_world(|world| {
        let id = world.detached(&["--rm"], "exit 0");
        world.until("its removal", || world.ok(&["ps", "-aq"]).is_empty());
        assert!(!world.pod(&id).exists());
        let id = world.detached(&["--name", "stays"], "exit 3");
        world.until("its rest", || !world.pod(&id).exists());
        assert!(world.ok(&["ps", "-a"]).contains("Exited (3)"));
        assert_eq!(world.ok(&["wait", "stays"]), "3\n");
    });
}

#[test]
fn a_killed_command_leaves_nothing_that_the_next_one_does_not_repair() {
    in_world(|world| {
        if !cfg!(debug_assertions) {
            eprintln!("SKIPPED: a release build has no failpoints");
            return;
        }
        let mark = world.path().join("mark");
        let mut deaths = 0;
        for point in POINTS.iter().filter(|point| !point.starts_with("shim.")) {
            let chosen = format!("{point}=self={}", mark.display());
            let mut command = world.command(&["run", "--rm", "--name", "victim", IMAGE, "true"]);
            world.start(command.env(VARIABLE, chosen)).wait().unwrap();
            // A step that is not taken here kills nobody.
            deaths += usize::from(mark.exists());
            let done = world.run(&["run", "--rm", "--name", "next", IMAGE, "echo", "fine"]);
            assert_eq!((done.code, done.out.as_str()), (0, "fine\n"), "after {point}: {done:?}");
            if mark.exists() {
                std::fs::remove_file(&mark).unwrap();
            }
        }
        assert!(deaths > 10, "{deaths} steps were taken");
        world.until("the last one's end", || {
            world.ok(&["prune", "-f"]);
            world.ok(&["ps", "-aq"]).is_empty()
        });
        world.until("its folder's removal", || {
            std::fs::read_dir(world.path().join("run/state/pods")).unwrap().count() == 0
        });
        assert_eq!(std::fs::read_dir(world.path().join("data/containers")).unwrap().count(), 0);
        assert_eq!(std::fs::read_dir(world.path().join("data/names")).unwrap().count(), 0);
    });
}

#[test]
fn a_killed_shim_is_told_as_an_end_and_the_container_can_start_again() {
    in_world(|world| {
        let id = world.detached(&["--name", "lost"], "echo alive; sleep 1000");
        kill(Pid::from_raw(world.shim(&id)), Signal::SIGKILL).unwrap();
        world.until("its end", || !world.ok(&["ps"]).contains("lost"));
        world.ok(&["start", "lost"]);
        assert!(world.ok(&["ps"]).contains("lost"));
        assert_eq!(world.run(&["inspect", "lost"]).code, 0);
    });
}

#[test]
fn containers_are_known_after_a_reboot() {
    in_world(|world| {
        let id = world.detached(&["--name", "before"], "echo words; sleep 1000");
        world.until("its words", || world.ok(&["logs", "before"]) == "words\n");
        kill(Pid::from_raw(world.shim(&id)), Signal::SIGKILL).unwrap();
        world.ok(&["stop", "-t", "0", "before"]);
        std::fs::remove_dir_all(world.path().join("run")).unwrap();
        assert!(world.ok(&["ps", "-a"]).contains("Exited ("));
        assert_eq!(world.ok(&["logs", "before"]), "words\n");
        world.ok(&["start", "before"]);
        world.until("its second life", || world.ok(&["logs", "before"]) == "words\nwords\n");
    });
}

#[test]
fn many_at_once_get_addresses_of_their_own() {
    in_world(|world| {
        let children: Vec<_> = (0..8)
            .map(|number| {
                let name = format!("c{number}");
                world.start(&mut world.command(&["run", "-d", "--name", &name, IMAGE, "sleep", "1000"]))
            })
            .collect();
        for child in children {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        let names: Vec<String> = (0..8).map(|number| format!("c{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let known: serde_json::Value =
            serde_json::from_str(&world.ok(&[&["inspect"][..], &names].concat())).unwrap();
        let addresses: std::collections::BTreeSet<String> = known
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["NetworkSettings"]["IPAddress"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(addresses.len(), 8, "{addresses:?}");
        world.ok(&[&["rm", "-f"][..], &names].concat());
    });
}
