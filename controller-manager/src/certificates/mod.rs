//! Requests for certificates: approves what kubelets may ask for, signs what has been approved, and clears away what is
//! over. [`plan`] decides, [`sign`] makes certificates.

mod plan;
mod request;
mod sign;

use std::sync::Arc;

use client::{Cache, ClientError, Next, ObjectKey, Reconcile, Runner, Tolerate, Writer, turn};
use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::{
        authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
        certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::api::{Api, ObjectMeta, Patch, PostParams};
use serde_json::json;
use x509_parser::{certificate::X509Certificate, pem::parse_x509_pem, prelude::FromDer};

use crate::Context;
use plan::Stage;
use request::Request;
use sign::Signer;

/// Starts the controllers; without the authority's key nothing is signed.
pub fn start(context: &mut Context, ca_certificate: &str, ca_key: &str) {
    let signer = Signer::new(ca_certificate, ca_key);
    if signer.is_none() && !ca_key.is_empty() {
        tracing::error!("the authority's key cannot sign: approved requests get no certificates");
    }
    let requests = context.cache::<CertificateSigningRequest>();
    let controller =
        Certificates { requests: requests.clone(), writer: context.writer("certificate-controller"), signer };
    context.run(Runner::new("certificates", controller).watch(&requests));
}

struct Certificates {
    requests: Arc<Cache<CertificateSigningRequest>>,
    writer: Writer,
    signer: Option<Signer>,
}

impl Reconcile for Certificates {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ClientError> {
        let Some(object) = self.requests.get_key(key) else { return Ok(Next::OnChange) };
        let now = Timestamp::now();
        let end = plan::end(&object, issued_until(&object));
        if end.is_some_and(|end| end <= now) {
            turn::describe("gone", "over");
            self.writer.delete(&*object).await?;
            return Ok(Next::OnChange);
        }
        match plan::stage(&object) {
            Stage::Pending => self.approve(&object, now).await?,
            Stage::Approved => self.sign(key, &object, now).await?,
            Stage::Done => {}
        }
        let until_end = end.and_then(|end| (end - now).total(jiff::Unit::Second).ok());
        Ok(until_end.map_or(Next::OnChange, |seconds| {
            Next::After(std::time::Duration::from_secs_f64(seconds.max(1.0)))
        }))
    }
}

impl Certificates {
    /// Approves what a kubelet asks for, where it may.
    async fn approve(&self, object: &CertificateSigningRequest, now: Timestamp) -> Result<(), ClientError> {
        let spec = &object.spec;
        let author = spec.username.clone().unwrap_or_default();
        let Ok(request) = Request::from_pem(&spec.request.0) else { return Ok(()) };
        let usages = spec.usages.clone().unwrap_or_default();
        for approval in plan::auto_approvals(&author, &spec.signer_name, &request, &usages) {
            if !self.may(object, approval.subresource).await? {
                continue;
            }
            turn::describe("approved", "pending");
            let condition = condition("Approved", "AutoApproved", approval.message, now);
            let mut approved = object.clone();
            approved.status.get_or_insert_default().conditions.get_or_insert_default().push(condition);
            let patch = Patch::Merge(json!({
                "metadata": {"resourceVersion": object.metadata.resource_version},
                "status": {"conditions": approved.status.and_then(|status| status.conditions)},
            }));
            let key = ObjectKey::of(object);
            let patched =
                self.writer.patch_subresource::<CertificateSigningRequest, _>("approval", &key, &patch).await;
            patched.or_not_found().map(drop).or_conflict()?;
            return Ok(());
        }
        Ok(())
    }

    /// Whether the author of a request may `create` on this subresource of requests.
    async fn may(&self, object: &CertificateSigningRequest, subresource: &str) -> Result<bool, ClientError> {
        let spec = &object.spec;
        let review = SubjectAccessReview {
            metadata: ObjectMeta::default(),
            spec: SubjectAccessReviewSpec {
                user: spec.username.clone(),
                uid: spec.uid.clone(),
                groups: spec.groups.clone(),
                extra: spec.extra.clone(),
                resource_attributes: Some(ResourceAttributes {
                    group: Some("certificates.k8s.io".into()),
                    resource: Some("certificatesigningrequests".into()),
                    subresource: Some(subresource.into()),
                    verb: Some("create".into()),
                    version: Some("*".into()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            status: None,
        };
        let api: Api<SubjectAccessReview> = Api::all(self.writer.client().clone());
        let answer = api.create(&PostParams::default(), &review).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    /// Signs what has been approved, or says why not.
    async fn sign(
        &self,
        key: &ObjectKey,
        object: &CertificateSigningRequest,
        now: Timestamp,
    ) -> Result<(), ClientError> {
        let Some(signer) = &self.signer else { return Ok(()) };
        let spec = &object.spec;
        let usages = spec.usages.clone().unwrap_or_default();
        let checked = Request::from_pem(&spec.request.0).and_then(|request| {
            match plan::fault(&spec.signer_name, &request, &usages) {
                Ok(None) => Ok(Some(request)),
                Ok(Some(fault)) => Err(fault),
                // Somebody else's.
                Err(()) => Ok(None),
            }
        });
        let lifetime = plan::lifetime(spec.expiration_seconds);
        let serial = *uuid::Uuid::new_v4().as_bytes();
        let signed = match checked {
            Ok(None) => return Ok(()),
            Ok(Some(request)) => signer.sign(&request, &usages, lifetime, serial, now),
            Err(fault) => Err(fault),
        };
        turn::describe("a certificate", "approved");
        let mut done = object.clone();
        let status = done.status.get_or_insert_default();
        match signed {
            Ok(certificate) => status.certificate = Some(ByteString(certificate.into_bytes())),
            Err(fault) => {
                let failed = condition("Failed", "SignerValidationFailure", &fault, now);
                status.conditions.get_or_insert_default().push(failed);
            }
        }
        self.writer.replace_status(&done).await.or_not_found().map(drop).or_conflict()?;
        tracing::debug!(%key, "a request for a certificate has been answered");
        Ok(())
    }
}

/// Until when the certificate that a request has got is good.
fn issued_until(object: &CertificateSigningRequest) -> Option<Timestamp> {
    let certificate = &object.status.as_ref()?.certificate.as_ref()?.0;
    let (_, block) = parse_x509_pem(certificate).ok()?;
    let (_, certificate) = X509Certificate::from_der(&block.contents).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

fn condition(kind: &str, reason: &str, message: &str, now: Timestamp) -> CertificateSigningRequestCondition {
    CertificateSigningRequestCondition {
        type_: kind.into(),
        status: "True".into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}
