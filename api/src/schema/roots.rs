//! The types that k8s-openapi has for our kinds; every other type is part of one of these.

use std::borrow::Cow;

use k8s_openapi::{
    api::{
        admissionregistration::v1 as admissionregistration, apps::v1 as apps,
        authentication::v1 as authentication, authorization::v1 as authorization,
        autoscaling::v1 as autoscaling_v1, autoscaling::v2 as autoscaling_v2, batch::v1 as batch,
        certificates::v1 as certificates, coordination::v1 as coordination, core::v1 as core,
        discovery::v1 as discovery, events::v1 as events, flowcontrol::v1 as flowcontrol,
        networking::v1 as networking, node::v1 as node, policy::v1 as policy, rbac::v1 as rbac,
        resource::v1 as resource, scheduling::v1 as scheduling, storage::v1 as storage,
        storagemigration::v1 as storagemigration,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions,
    apimachinery::pkg::apis::meta::v1 as meta,
    kube_aggregator::pkg::apis::apiregistration::v1 as apiregistration,
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value};

use super::metrics;

/// A type that stands on its own.
pub(crate) struct Root {
    /// Its definition's name.
    pub(crate) name: fn() -> Cow<'static, str>,
    generate: fn(&mut SchemaGenerator) -> Schema,
}

impl Root {
    /// The JSON schemas of the type and of all that it consists of, descriptions included.
    pub(crate) fn definitions(&self) -> Map<String, Value> {
        let mut generator = SchemaGenerator::default();
        self.add_to(&mut generator);
        generator.take_definitions(false)
    }

    /// Collects the same in a generator that may have seen other types.
    pub(crate) fn add_to(&self, generator: &mut SchemaGenerator) {
        (self.generate)(generator);
    }
}

const fn root<T: JsonSchema>() -> Root {
    Root { name: T::schema_name, generate: SchemaGenerator::subschema_for::<T> }
}

/// All of them.
pub(crate) const ROOTS: &[Root] = &[
    root::<core::Binding>(),
    root::<core::ComponentStatus>(),
    root::<core::ConfigMap>(),
    root::<core::Endpoints>(),
    root::<core::Event>(),
    root::<core::LimitRange>(),
    root::<core::Namespace>(),
    root::<core::Node>(),
    root::<core::PersistentVolumeClaim>(),
    root::<core::PersistentVolume>(),
    root::<core::Pod>(),
    root::<core::PodTemplate>(),
    root::<core::ReplicationController>(),
    root::<core::ResourceQuota>(),
    root::<core::Secret>(),
    root::<core::ServiceAccount>(),
    root::<core::Service>(),
    root::<admissionregistration::MutatingAdmissionPolicy>(),
    root::<admissionregistration::MutatingAdmissionPolicyBinding>(),
    root::<admissionregistration::MutatingWebhookConfiguration>(),
    root::<admissionregistration::ValidatingAdmissionPolicy>(),
    root::<admissionregistration::ValidatingAdmissionPolicyBinding>(),
    root::<admissionregistration::ValidatingWebhookConfiguration>(),
    root::<apiextensions::CustomResourceDefinition>(),
    root::<apiregistration::APIService>(),
    root::<apps::ControllerRevision>(),
    root::<apps::DaemonSet>(),
    root::<apps::Deployment>(),
    root::<apps::ReplicaSet>(),
    root::<apps::StatefulSet>(),
    root::<authentication::SelfSubjectReview>(),
    root::<authentication::TokenRequest>(),
    root::<authentication::TokenReview>(),
    root::<authorization::LocalSubjectAccessReview>(),
    root::<authorization::SelfSubjectAccessReview>(),
    root::<authorization::SelfSubjectRulesReview>(),
    root::<authorization::SubjectAccessReview>(),
    root::<autoscaling_v1::HorizontalPodAutoscaler>(),
    root::<autoscaling_v1::Scale>(),
    root::<autoscaling_v2::HorizontalPodAutoscaler>(),
    root::<batch::CronJob>(),
    root::<batch::Job>(),
    root::<certificates::CertificateSigningRequest>(),
    root::<certificates::ClusterTrustBundle>(),
    root::<certificates::PodCertificateRequest>(),
    root::<coordination::Lease>(),
    root::<discovery::EndpointSlice>(),
    root::<events::Event>(),
    root::<flowcontrol::FlowSchema>(),
    root::<flowcontrol::PriorityLevelConfiguration>(),
    root::<networking::IngressClass>(),
    root::<networking::Ingress>(),
    root::<networking::IPAddress>(),
    root::<networking::NetworkPolicy>(),
    root::<networking::ServiceCIDR>(),
    root::<node::RuntimeClass>(),
    root::<policy::Eviction>(),
    root::<policy::PodDisruptionBudget>(),
    root::<rbac::ClusterRoleBinding>(),
    root::<rbac::ClusterRole>(),
    root::<rbac::RoleBinding>(),
    root::<rbac::Role>(),
    root::<resource::DeviceClass>(),
    root::<resource::DeviceTaintRule>(),
    root::<resource::ResourceClaim>(),
    root::<resource::ResourceClaimTemplate>(),
    root::<resource::ResourceSlice>(),
    root::<scheduling::PriorityClass>(),
    root::<storage::CSIDriver>(),
    root::<storage::CSINode>(),
    root::<storage::CSIStorageCapacity>(),
    root::<storage::StorageClass>(),
    root::<storage::VolumeAttachment>(),
    root::<storage::VolumeAttributesClass>(),
    root::<storagemigration::StorageVersionMigration>(),
    root::<metrics::NodeMetrics>(),
    root::<metrics::PodMetrics>(),
    root::<meta::DeleteOptions>(),
    root::<meta::ListMeta>(),
    root::<meta::ObjectMeta>(),
    root::<meta::Status>(),
];
