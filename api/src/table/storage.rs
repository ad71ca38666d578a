//! What volumes, claims and storage classes print.

use serde_json::Value;

use super::cells::{count, flag, joined, text_or};
use super::{AGE, Column, NAME};
use crate::Object;

const VOLUME_MODE: Column = Column::text("VolumeMode", "File system or block device.", |object, _| {
    text_or(object, &["spec", "volumeMode"], "<unset>")
})
.wide();

const ATTRIBUTES_CLASS: Column =
    Column::text("VolumeAttributesClass", "Class of the volume's attributes.", |object, _| {
        text_or(object, &["spec", "volumeAttributesClassName"], "<unset>")
    });

const STATUS: Column = Column::text("Status", "Whether it is bound, free or going away.", |object, _| {
    match object.deletion_timestamp() {
        Some(_) => "Terminating".into(),
        None => text_or(object, &["status", "phase"], ""),
    }
});

/// Columns of PersistentVolumes.
pub const PERSISTENT_VOLUME: &[Column] = &[
    Column::text("Capacity", "How much fits.", |object, _| {
        text_or(object, &["spec", "capacity", "storage"], "0")
    }),
    Column::text("Access Modes", "How it may be mounted.", |object, _| {
        access_modes(object, &["spec", "accessModes"]).into()
    }),
    Column::text("Reclaim Policy", "What happens when its claim is gone.", |object, _| {
        text_or(object, &["spec", "persistentVolumeReclaimPolicy"], "")
    }),
    STATUS,
    Column::text("Claim", "Who has it.", |object, _| {
        let text = |name: &str| object.text(&["spec", "claimRef", name]);
        match object.at(&["spec", "claimRef"]) {
            Some(claim) if claim.is_object() => format!("{}/{}", text("namespace"), text("name")).into(),
            _ => "".into(),
        }
    }),
    Column::text("StorageClass", "Class of the volume.", |object, _| storage_class(object).into()),
    ATTRIBUTES_CLASS,
    Column::text("Reason", "Why it is in its state.", |object, _| text_or(object, &["status", "reason"], "")),
    AGE,
    VOLUME_MODE,
];

/// Columns of PersistentVolumeClaims.
pub const PERSISTENT_VOLUME_CLAIM: &[Column] = &[
    STATUS,
    Column::text("Volume", "The volume that was found.", |object, _| {
        text_or(object, &["spec", "volumeName"], "")
    }),
    Column::text("Capacity", "How much fits.", |object, _| {
        if is_bound(object) { text_or(object, &["status", "capacity", "storage"], "0") } else { "".into() }
    }),
    Column::text("Access Modes", "How it may be mounted.", |object, _| {
        if is_bound(object) { access_modes(object, &["status", "accessModes"]).into() } else { "".into() }
    }),
    Column::text("StorageClass", "Class of the volume.", |object, _| storage_class(object).into()),
    ATTRIBUTES_CLASS,
    AGE,
    VOLUME_MODE,
];

fn is_bound(claim: &Object) -> bool {
    !claim.text(&["spec", "volumeName"]).is_empty()
}

fn storage_class(object: &Object) -> &str {
    match object.annotation("volume.beta.kubernetes.io/storage-class") {
        Some(class) => class,
        None => object.text(&["spec", "storageClassName"]),
    }
}

/// Access modes as `RWO,ROX`.
fn access_modes(object: &Object, path: &[&str]) -> String {
    const SHORT: [(&str, &str); 4] = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let modes = object.list(path);
    let given = SHORT.iter().filter(|(mode, _)| modes.iter().any(|given| given == mode));
    joined(&given.map(|(_, short)| *short).collect::<Vec<_>>(), "")
}

/// Columns of StorageClasses.
pub const STORAGE_CLASS: &[Column] = &[
    Column {
        cell: |object, _| {
            name_of_class(
                object,
                &[
                    "storageclass.kubernetes.io/is-default-class",
                    "storageclass.beta.kubernetes.io/is-default-class",
                ],
            )
        },
        ..NAME
    },
    Column::text("Provisioner", "Who makes the volumes.", |object, _| text_or(object, &["provisioner"], "")),
    Column::text("ReclaimPolicy", "What happens to a volume when its claim is gone.", |object, _| {
        text_or(object, &["reclaimPolicy"], "Delete")
    }),
    Column::text("VolumeBindingMode", "When volumes are made.", |object, _| {
        text_or(object, &["volumeBindingMode"], "Immediate")
    }),
    Column::text("AllowVolumeExpansion", "Whether volumes may grow.", |object, _| {
        flag(object, &["allowVolumeExpansion"])
    }),
    AGE,
];

/// The name of a class, and whether it is the one of those who name none.
fn name_of_class(object: &Object, annotations: &[&str]) -> Value {
    let is_default = annotations.iter().any(|key| object.annotation(key) == Some("true"));
    if is_default { format!("{} (default)", object.name()).into() } else { object.name().into() }
}

/// Columns of VolumeAttachments.
pub const VOLUME_ATTACHMENT: &[Column] = &[
    Column {
        format: "name",
        ..Column::text("Attacher", "Who attaches.", |object, _| text_or(object, &["spec", "attacher"], ""))
    },
    Column::text("PV", "What is attached.", |object, _| {
        text_or(object, &["spec", "source", "persistentVolumeName"], "")
    }),
    Column::text("Node", "Where it is attached.", |object, _| text_or(object, &["spec", "nodeName"], "")),
    Column {
        kind: "boolean",
        ..Column::text("Attached", "Whether it is attached.", |object, _| {
            flag(object, &["status", "attached"])
        })
    },
    AGE,
];

/// Columns of VolumeAttributesClasses.
pub const VOLUME_ATTRIBUTES_CLASS: &[Column] = &[
    Column {
        cell: |object, _| {
            name_of_class(object, &["volumeattributesclass.alpha.kubernetes.io/is-default-class"])
        },
        ..NAME
    },
    Column::text("DriverName", "Whose attributes these are.", |object, _| {
        text_or(object, &["driverName"], "")
    }),
    AGE,
];

/// Columns of CSINodes.
pub const CSI_NODE: &[Column] = &[
    Column::number("Drivers", "How many drivers the node has.", |object, _| {
        count(object, &["spec", "drivers"]).into()
    }),
    AGE,
];

/// Columns of CSIDrivers.
pub const CSI_DRIVER: &[Column] = &[
    Column {
        kind: "boolean",
        ..Column::text("AttachRequired", "Whether volumes are attached before use.", |object, _| {
            flag(object, &["spec", "attachRequired"])
        })
    },
    Column {
        kind: "boolean",
        ..Column::text("PodInfoOnMount", "Whether the driver is told about the pod.", |object, _| {
            flag(object, &["spec", "podInfoOnMount"])
        })
    },
    Column {
        kind: "boolean",
        ..Column::text("StorageCapacity", "Whether free capacity is published.", |object, _| {
            flag(object, &["spec", "storageCapacity"])
        })
    },
    Column::text("TokenRequests", "Audiences that the driver gets tokens for.", |object, _| {
        let audiences: Vec<&str> =
            object.list(&["spec", "tokenRequests"]).iter().filter_map(|it| it["audience"].as_str()).collect();
        joined(&audiences, "<unset>").into()
    }),
    Column {
        kind: "boolean",
        ..Column::text("RequiresRepublish", "Whether mounts are refreshed.", |object, _| {
            flag(object, &["spec", "requiresRepublish"])
        })
    },
    Column::text("Modes", "Which volumes the driver makes.", |object, _| {
        let modes: Vec<&str> =
            object.list(&["spec", "volumeLifecycleModes"]).iter().filter_map(Value::as_str).collect();
        joined(&modes, "<none>").into()
    }),
    AGE,
];

/// Columns of CSIStorageCapacities.
pub const CSI_STORAGE_CAPACITY: &[Column] = &[
    Column::text("StorageClassName", "Class of the volumes that would fit.", |object, _| {
        text_or(object, &["storageClassName"], "")
    }),
    Column::text("Capacity", "How much is free.", |object, _| text_or(object, &["capacity"], "<unset>")),
];
