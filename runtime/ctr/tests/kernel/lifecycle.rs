//! From `run` to `rm`: what containers are, and what becomes of them.

use crate::world::{IMAGE, in_world};

#[test]
fn run_is_the_program_in_the_foreground() {
    in_world(|world| {
        let done = world.run(&["run", "--rm", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 7"]);
        assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (7, "out\n", "err\n"));
        let done = world.run_with(&["run", "--rm", "-i", IMAGE, "cat"], b"typed\n");
        assert_eq!((done.code, done.out.as_str()), (0, "typed\n"), "{done:?}");
        // Options of the command are the command's.
        assert_eq!(world.ok(&["run", "--rm", IMAGE, "echo", "-d", "--rm"]), "-d --rm\n");
        assert_eq!(world.ok(&["ps", "-a", "-q"]), "", "--rm removes");
    });
}

#[test]
fn a_container_is_as_it_was_asked_for() {
    in_world(|world| {
        std::fs::write(world.path().join("vars"), "# comment\nFROM_FILE=yes\n").unwrap();
        let vars = world.path().join("vars");
        let options = [
            "run",
            "--rm",
            "--name",
            "asked",
            "--hostname",
            "box",
            "-e",
            "COLOR=red",
            "--env-file",
            vars.to_str().unwrap(),
            "-w",
            "/tmp",
            "--user",
            "web",
            "-m",
            "64m",
            "--cpus",
            "0.5",
            "--read-only",
            "--cap-drop",
            "ALL",
            "--label",
            "a=b",
        ];
        let script = "hostname; pwd; id -u; id -g; echo $COLOR $FROM_FILE; touch /tmp/x 2>/dev/null || echo read-only; \
                      cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; \
                      cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || head -c 5 /sys/fs/cgroup/cpu.max; \
                      grep CapBnd /proc/self/status; grep box /etc/hosts | wc -l";
        let text = world.ok(&[&options[..], &[IMAGE, "sh", "-c", script]].concat());
        let zero = "CapBnd:\t0000000000000000";
        assert_eq!(text, format!("box\n/tmp\n33\n34\nred yes\nread-only\n67108864\n50000\n{zero}\n1\n"));
        let id = world.ok(&["create", "--entrypoint", "echo", IMAGE, "from", "entrypoint"]);
        assert_eq!(world.ok(&["start", "-a", id.trim()]), "from entrypoint\n");
    });
}

#[test]
fn a_detached_container_lives_on_and_is_listed() {
    in_world(|world| {
        let id = world.detached(&["--name", "web", "--label", "tier=front"], "echo begun; sleep 1000");
        let table = world.ok(&["ps"]);
        let row = table.lines().nth(1).unwrap();
        assert!(table.starts_with("CONTAINER ID   IMAGE"), "{table}");
        assert!(row.starts_with(&id[..12]) && row.contains("Up ") && row.ends_with("web"), "{table}");
        for filter in ["name=we", "label=tier=front", "status=running", "ancestor=coracle/test:1"] {
            assert_eq!(world.ok(&["ps", "-q", "--no-trunc", "--filter", filter]).trim(), id, "{filter}");
        }
        assert_eq!(world.ok(&["ps", "-q", "--filter", "label=tier=back"]), "");
        let listed: serde_json::Value = serde_json::from_str(&world.ok(&["ps", "-o", "json"])).unwrap();
        assert_eq!((&listed[0]["Names"], &listed[0]["State"]), (&"web".into(), &"running".into()));
        let known: serde_json::Value = serde_json::from_str(&world.ok(&["inspect", "web"])).unwrap();
        assert_eq!(known[0]["State"]["Running"], true);
        assert!(known[0]["NetworkSettings"]["IPAddress"].as_str().unwrap().starts_with("10.89."), "{known}");
        world.until("the first words", || world.ok(&["logs", "web"]) == "begun\n");
        assert!(world.ok(&["top", "web"]).contains("sleep 1000"));
        let stats: serde_json::Value =
            serde_json::from_str(&world.ok(&["stats", "--no-stream", "-o", "json"])).unwrap();
        assert!(
            stats[0]["MemUsage"].as_u64().unwrap() > 0 && stats[0]["PIDs"].as_u64().unwrap() >= 1,
            "{stats}"
        );
        assert!(world.ok(&["stats", "--no-stream"]).contains("CPU %"));
        world.ok(&["rename", "web", "site"]);
        assert_eq!(world.run(&["inspect", "web"]).code, 1);
        assert_eq!(world.ok(&["rm", "-f", "site"]), "site\n");
        assert_eq!(world.ok(&["ps", "-aq"]), "");
    });
}

#[test]
fn stop_asks_and_start_goes_on_with_the_same_files() {
    in_world(|world| {
        let script = "trap 'echo asked; exit 5' TERM; cat /kept 2>/dev/null; echo was here > /kept; \
                      while true; do sleep 0.05; done";
        world.detached(&["--name", "polite"], script);
        world.until("its file", || world.run(&["exec", "polite", "cat", "/kept"]).code == 0);
        world.ok(&["stop", "polite"]);
        assert_eq!(world.ok(&["wait", "polite"]), "5\n");
        assert!(world.ok(&["ps", "-a"]).contains("Exited (5)"));
        world.ok(&["start", "polite"]);
        world.until("its second life", || world.ok(&["logs", "polite"]).ends_with("asked\nwas here\n"));
        world.ok(&["restart", "-t", "0", "polite"]);
        let known: serde_json::Value = serde_json::from_str(&world.ok(&["inspect", "polite"])).unwrap();
        assert_eq!((&known[0]["State"]["Running"], &known[0]["RestartCount"]), (&true.into(), &2.into()));
        world.ok(&["kill", "-s", "KILL", "polite"]);
        assert!(world.ok(&["ps", "-a"]).contains("Exited (137)"));
        assert_eq!(world.ok(&["prune", "-f"]).lines().count(), 2);
    });
}

#[test]
fn a_paused_container_stands_still() {
    in_world(|world| {
        world.detached(&["--name", "clock"], "i=0; while true; do i=$((i+1)); echo $i; sleep 0.01; done");
        world.until("its lines", || world.ok(&["logs", "clock"]).lines().count() > 3);
        world.ok(&["pause", "clock"]);
        assert!(world.ok(&["ps"]).contains("(Paused)"));
        let before = world.ok(&["logs", "clock"]);
        assert!(world.run(&["exec", "clock", "true"]).err.contains("is paused"));
        assert_eq!(world.ok(&["logs", "clock"]), before);
        assert_eq!(world.run(&["pause", "clock"]).code, 1);
        world.ok(&["unpause", "clock"]);
        world.until("more lines", || world.ok(&["logs", "clock"]).len() > before.len());
        world.ok(&["pause", "clock"]);
        world.ok(&["rm", "-f", "clock"]);
    });
}

#[test]
fn whoever_waits_hears_of_the_end() {
    in_world(|world| {
        world.detached(&["--name", "short"], "while ! test -e /go; do sleep 0.02; done; exit 42");
        let waiting = world.start(&mut world.command(&["wait", "short"]));
        world.ok(&["exec", "short", "touch", "/go"]);
        let output = waiting.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "42\n");
    });
}
