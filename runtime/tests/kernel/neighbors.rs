//! What a container that may trace processes sees of those that are being set up beside it.

use cri::v1::*;

use crate::world::{World, in_world};

/// What Docker and containerd give, and CAP_SYS_PTRACE.
const ALLOWED: &str = "00000000a80c25fb";

/// Looks at every process for a file of the node and for rights that the container does not have, until it is told to
/// end.
const SPY: &str = "while ! test -e /dev/shm/end; do \
        for root in /proc/[0-9]*/root; do test -e $root$SECRET && echo found $root >> /dev/shm/found; done; \
        cat /proc/[0-9]*/status 2>/dev/null | grep CapEff | grep -v $ALLOWED >> /dev/shm/found; \
        test -e /dev/shm/ready || touch /dev/shm/ready; \
    done; \
    cat /dev/shm/found 2>/dev/null | head -n 5; echo over";

/// A container that sees through all processes that it sees.
fn spy(world: &World, pid: NamespaceMode) -> ContainerConfig {
    let mut config = tracer(world, "spy", SPY, pid);
    let secret = world.directory.path().join("secret");
    std::fs::write(&secret, "of the node").unwrap();
    let variable = |key: &str, value: &str| KeyValue { key: key.into(), value: value.into() };
    config.envs = vec![variable("SECRET", secret.to_str().unwrap()), variable("ALLOWED", ALLOWED)];
    config
}

fn tracer(world: &World, name: &str, script: &str, pid: NamespaceMode) -> ContainerConfig {
    let mut config = world.script(name, script);
    let context = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    let add_capabilities = vec!["SYS_PTRACE".to_owned()];
    context.capabilities = Some(Capability { add_capabilities, ..Default::default() });
    // A profile would need a right to be loaded with.
    context.seccomp = None;
    context.namespace_options = Some(NamespaceOption { pid: pid as i32, ..Default::default() });
    config
}

/// Waits until the spy has looked at everything once.
async fn looks(world: &World, container: &str) {
    let wait = "while ! test -e /dev/shm/ready; do sleep 0.01; done";
    assert_eq!(world.exec(container, &["sh", "-c", wait], 20).await.unwrap().exit_code, 0);
}

/// Ends the spy: what it has seen.
async fn report(world: &World, spy: &str) -> String {
    let events = world.events().await;
    world.exec(spy, &["touch", "/dev/shm/end"], 20).await.unwrap();
    world.end_of(spy, events).await;
    world.log("spy.log")
}

#[test]
fn an_exec_shows_nothing_of_the_node_to_who_may_trace_it() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let container = world.run(&sandbox, spy(&world, NamespaceMode::Container)).await;
        looks(&world, &container).await;
        for _ in 0..200 {
            assert_eq!(world.exec(&container, &["true"], 20).await.unwrap().exit_code, 0);
        }
        assert_eq!(report(&world, &container).await, "stdout F over\n");
        world
    });
}

#[test]
fn a_start_shows_nothing_of_the_node_to_others_of_its_pod() {
    in_world(|world| async move {
        let shared = NamespaceOption { pid: NamespaceMode::Pod as i32, ..Default::default() };
        let sandbox = world
            .sandbox_with(|config| {
                let linux = config.linux.get_or_insert_default();
                linux.security_context.get_or_insert_default().namespace_options = Some(shared);
            })
            .await;
        let container = world.run(&sandbox, spy(&world, NamespaceMode::Pod)).await;
        looks(&world, &container).await;
        for round in 0..20 {
            let script = "test -e /proc/1/status && test $$ != 1 && cat /proc/1/comm";
            let config = tracer(&world, &format!("other{round}"), script, NamespaceMode::Pod);
            let (code, log) = world.outcome(&sandbox, config).await;
            assert_eq!((code, log.as_str()), (0, "stdout F pause\n"), "it is among the pod's processes");
            assert_eq!(world.exec(&container, &["true"], 20).await.unwrap().exit_code, 0);
        }
        // The pause process may do nothing at all, which is no more than the spy may.
        let seen = report(&world, &container).await;
        let seen = seen.lines().filter(|line| !line.ends_with("CapEff:\t0000000000000000"));
        assert_eq!(seen.collect::<Vec<_>>(), ["stdout F over"]);
        world
    });
}
