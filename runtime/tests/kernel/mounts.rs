//! How volumes follow the node, and what of them can be written.

use std::path::Path;

use cri::v1::*;
use nix::mount::{MsFlags, mount, umount};

use crate::world::{IMAGE, World, in_world};

fn bind(source: &Path, target: &str) -> Mount {
    Mount { container_path: target.into(), host_path: source.display().to_string(), ..Default::default() }
}

async fn text(world: &World, sandbox: &str, config: ContainerConfig) -> String {
    let (_, log) = world.outcome(sandbox, config).await;
    log.replace("stdout F ", "").replace("stderr F ", "")
}

fn make_tmpfs(at: &Path) {
    std::fs::create_dir_all(at).unwrap();
    mount(Some("none"), at, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
}

fn privileged(config: &mut ContainerConfig) {
    config.linux.get_or_insert_default().security_context.get_or_insert_default().privileged = true;
}

#[test]
fn mounts_spread_as_far_as_they_are_allowed_to() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let data = world.directory.path().join("data");
        make_tmpfs(&data);
        for name in ["theirs", "ours"] {
            std::fs::create_dir_all(data.join(name)).unwrap();
        }
        let with = |name: &str, propagation: MountPropagation| {
            let script = "touch /data/ready; while ! test -e /data/go; do sleep 0.01; done; \
                          test -e /data/theirs/file && echo theirs; mount -t tmpfs none /data/ours && touch /data/ours/file; \
                          touch /data/done; while test -e /data/go; do sleep 0.01; done; busybox umount /data/ours";
            let mut config = world.script(name, script);
            privileged(&mut config);
            config.mounts = vec![Mount { propagation: propagation as i32, ..bind(&data, "/data") }];
            config
        };
        // The node's mounts are private, so that nothing could spread.
        let shared = with("refused", MountPropagation::PropagationBidirectional);
        let container = world.create(&sandbox, shared).await.unwrap();
        let error = world.start(&container).await.unwrap_err();
        assert!(error.message.contains("but it is not a shared mount"), "{error}");

        mount(None::<&str>, &data, None::<&str>, MsFlags::MS_SHARED, None::<&str>).unwrap();
        for (name, propagation, sees_theirs, shows_ours) in [
            ("private", MountPropagation::PropagationPrivate, false, false),
            ("slave", MountPropagation::PropagationHostToContainer, true, false),
            ("shared", MountPropagation::PropagationBidirectional, true, true),
        ] {
            let events = world.events().await;
            let container = world.run(&sandbox, with(name, propagation)).await;
            let wait = |file: &'static str| {
                let path = data.join(file);
                async move {
                    while !path.exists() {
                        tokio::task::yield_now().await;
                    }
                }
            };
            wait("ready").await;
            make_tmpfs(&data.join("theirs"));
            std::fs::write(data.join("theirs/file"), "").unwrap();
            std::fs::write(data.join("go"), "").unwrap();
            wait("done").await;
            assert_eq!(data.join("ours/file").exists(), shows_ours, "{name}");
            std::fs::remove_file(data.join("go")).unwrap();
            world.end_of(&container, events).await;
            let log = world.log(&format!("{name}.log"));
            assert_eq!(log.contains("theirs"), sees_theirs, "{name}: {log}");
            umount(&data.join("theirs")).unwrap();
            for file in ["ready", "done"] {
                std::fs::remove_file(data.join(file)).unwrap();
            }
        }
        umount(&data).unwrap();
        world
    });
}

#[test]
fn read_only_goes_as_deep_as_it_is_asked_to() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let data = world.directory.path().join("data");
        make_tmpfs(&data);
        make_tmpfs(&data.join("deep"));
        for (name, recursive, expected) in
            [("flat", false, "top protected\n"), ("deep", true, "top protected\ndeep protected\n")]
        {
            let script = "touch /data/x 2>/dev/null || echo top protected; touch /data/deep/x 2>/dev/null || echo deep protected";
            let mut config = world.script(name, script);
            config.mounts =
                vec![Mount { readonly: true, recursive_read_only: recursive, ..bind(&data, "/data") }];
            assert_eq!(text(&world, &sandbox, config).await, expected, "{name}");
        }
        umount(&data.join("deep")).unwrap();
        umount(&data).unwrap();
        world
    });
}

#[test]
fn an_image_is_a_volume_that_nobody_can_write_to_or_run() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let image = |target: &str, sub_path: &str| Mount {
            container_path: target.into(),
            image: Some(ImageSpec { image: IMAGE.into(), ..Default::default() }),
            image_sub_path: sub_path.into(),
            readonly: true,
            ..Default::default()
        };
        let script = "ls -A /image/etc | tr '\\n' ' '; echo; touch /image/x 2>/dev/null || echo protected; \
                      /image/bin/busybox true 2>/dev/null || echo not run; ls /part | tr '\\n' ' '; echo";
        let mut config = world.script("main", script);
        config.mounts = vec![image("/image", ""), image("/part", "etc")];
        assert_eq!(
            text(&world, &sandbox, config).await,
            "group passwd \nprotected\nnot run\ngroup passwd \n"
        );

        let mut config = world.script("missing", "true");
        config.mounts = vec![image("/part", "no/such")];
        let container = world.create(&sandbox, config).await.unwrap();
        let error = world.start(&container).await.unwrap_err();
        assert!(error.message.contains("failed to find subpath \"no/such\" in the image"), "{error}");
        let mut config = world.script("unknown", "true");
        config.mounts = vec![image("/part", "")];
        config.mounts[0].image.as_mut().unwrap().image = "nowhere:1".into();
        let error = world.create(&sandbox, config).await.unwrap_err();
        assert!(error.message.contains("failed to resolve image volume \"nowhere:1\""), "{error}");
        world
    });
}
