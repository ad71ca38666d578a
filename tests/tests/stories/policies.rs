//! Admission policies as administrators write them.

use e2e::Cluster;

const POLICY: &str = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: replicas.example.com}
spec:
  paramKind: {apiVersion: v1, kind: ConfigMap}
  matchConstraints:
    resourceRules:
      - {apiGroups: [apps], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [deployments]}
  validations:
    - expression: object.spec.replicas <= int(params.data.most)
      messageExpression: "'at most ' + params.data.most + ' replicas'"
"#;

fn binding(action: &str) -> String {
    format!(
        "
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {{name: replicas-here.example.com}}
spec:
  policyName: replicas.example.com
  validationActions: [{action}]
  paramRef: {{name: limits, namespace: default, parameterNotFoundAction: Deny}}
  matchResources:
    namespaceSelector:
      matchLabels: {{kubernetes.io/metadata.name: default}}
"
    )
}

#[test]
fn a_policy_denies_and_warns_by_a_parameter() {
    let cluster = Cluster::start();
    cluster.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: limits}\ndata: {most: '2'}\n");
    cluster.apply(POLICY);
    cluster.apply(&binding("Deny"));
    let printed = cluster.kubectl("get validatingadmissionpolicies").ok();
    assert!(printed.contains("VALIDATIONS") && printed.contains("v1/ConfigMap"), "{printed}");
    let create = "create deployment web --image=example/none --replicas=3";
    let refused = cluster.kubectl(create).fails();
    assert!(
        refused.contains("ValidatingAdmissionPolicy 'replicas.example.com' with binding 'replicas-here.example.com' denied request: at most 2 replicas"),
        "{refused}"
    );
    cluster.kubectl("create deployment web --image=example/none --replicas=0").ok();
    cluster.kubectl("scale deployment web --replicas=0").ok();

    cluster.apply(&binding("Warn"));
    let warned =
        cluster.kubectl("create deployment other --image=example/none --replicas=3 --dry-run=server");
    let told = warned.err;
    assert!(
        told.contains("Warning: Validation failed for ValidatingAdmissionPolicy 'replicas.example.com'"),
        "{told}"
    );
}
