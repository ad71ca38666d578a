"""What a program with the Python client does: create, list, watch, patch, apply, exec, logs, delete, custom objects.

Runs against $KUBECONFIG; ends with 0 when everything was as it should be.
"""
import time

from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException
from kubernetes.stream import stream

config.load_kube_config()
core, apps, custom = client.CoreV1Api(), client.AppsV1Api(), client.CustomObjectsApi()
NAMESPACE = "default"


def deployment(replicas):
    container = client.V1Container(name="main", image="busybox:1.35", command=["sh", "-c", "echo ready; exec sleep 1000"])
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels={"app": "web"}),
        spec=client.V1PodSpec(containers=[container], termination_grace_period_seconds=0),
    )
    spec = client.V1DeploymentSpec(replicas=replicas, selector={"matchLabels": {"app": "web"}}, template=template)
    return client.V1Deployment(metadata=client.V1ObjectMeta(name="web"), spec=spec)


def watches_until_ready():
    """A list, then a watch from there: the way of every informer."""
    apps.create_namespaced_deployment(NAMESPACE, deployment(2))
    pods = core.list_namespaced_pod(NAMESPACE, label_selector="app=web")
    ready = set()
    events = watch.Watch().stream(
        core.list_namespaced_pod,
        NAMESPACE,
        label_selector="app=web",
        resource_version=pods.metadata.resource_version,
        timeout_seconds=60,
    )
    for pod in pods.items:
        ready |= {pod.metadata.name} if is_ready(pod) else set()
    while len(ready) < 2:
        event = next(events)
        assert event["type"] in ("ADDED", "MODIFIED"), event
        if is_ready(event["object"]):
            ready.add(event["object"].metadata.name)
    return sorted(ready)


def is_ready(pod):
    return any(one.type == "Ready" and one.status == "True" for one in pod.status.conditions or [])


def patches():
    def patched(body, content_type):
        return apps.patch_namespaced_deployment("web", NAMESPACE, body, _content_type=content_type)

    merged = patched({"metadata": {"labels": {"a": "1"}}}, "application/merge-patch+json")
    assert merged.metadata.labels == {"a": "1"}, merged.metadata.labels
    operations = [{"op": "replace", "path": "/metadata/labels/a", "value": "2"}]
    assert patched(operations, "application/json-patch+json").metadata.labels == {"a": "2"}
    env = {"spec": {"template": {"spec": {"containers": [{"name": "main", "env": [{"name": "X", "value": "y"}]}]}}}}
    container = patched(env, "application/strategic-merge-patch+json").spec.template.spec.containers[0]
    assert (container.image, container.env[0].value) == ("busybox:1.35", "y"), container
    scale = apps.patch_namespaced_deployment_scale("web", NAMESPACE, {"spec": {"replicas": 1}})
    assert scale.spec.replicas == 1, scale


def applies():
    """The dynamic client learns the kinds from discovery."""
    config_maps = dynamic.DynamicClient(client.ApiClient()).resources.get(api_version="v1", kind="ConfigMap")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"a": "1"}}
    config_maps.server_side_apply(body=body, namespace=NAMESPACE, field_manager="one")
    try:
        body["data"]["a"] = "2"
        config_maps.server_side_apply(body=body, namespace=NAMESPACE, field_manager="two")
        raise AssertionError("a conflict is refused")
    except ApiException as refused:
        assert refused.status == 409, refused
    forced = config_maps.server_side_apply(body=body, namespace=NAMESPACE, field_manager="two", force_conflicts=True)
    assert forced.data.a == "2", forced


def runs_commands(pod):
    said = stream(
        core.connect_get_namespaced_pod_exec, pod, NAMESPACE, command=["sh", "-c", "echo out; echo err >&2; cat; exit 3"],
        stdin=True, stdout=True, stderr=True, _preload_content=False,
    )
    said.write_stdin("typed\n")
    out = ""
    while "typed" not in out:
        said.update(timeout=10)
        out += said.read_stdout(timeout=0) if said.peek_stdout() else ""
        assert said.is_open(), out
    said.close()
    assert out.startswith("out\n"), out
    once = stream(
        core.connect_get_namespaced_pod_exec, pod, NAMESPACE, command=["sh", "-c", "echo hello; exit 3"],
        stdout=True, stderr=True, _preload_content=False,
    )
    once.run_forever(timeout=30)
    assert (once.read_stdout(), once.returncode) == ("hello\n", 3), once.returncode
    assert core.read_namespaced_pod_log(pod, NAMESPACE) == "ready\n"


def has_custom_objects():
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    names = {"plural": "boats", "singular": "boat", "kind": "Boat"}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "boats.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]},
    }
    extensions = client.ApiextensionsV1Api()
    extensions.create_custom_resource_definition(definition)
    for event in watch.Watch().stream(extensions.list_custom_resource_definition, timeout_seconds=60):
        conditions = event["object"].status.conditions or []
        if any(one.type == "Established" and one.status == "True" for one in conditions):
            break
    place = ("example.com", "v1", NAMESPACE, "boats")
    custom.create_namespaced_custom_object(*place, {"apiVersion": "example.com/v1", "kind": "Boat", "metadata": {"name": "b"}, "oars": 2})
    assert custom.get_namespaced_custom_object(*place, "b")["oars"] == 2
    custom.patch_namespaced_custom_object(*place, "b", {"oars": 4})
    assert [boat["oars"] for boat in custom.list_namespaced_custom_object(*place)["items"]] == [4]


def deletes():
    apps.delete_namespaced_deployment("web", NAMESPACE, propagation_policy="Foreground")
    deadline = time.monotonic() + 60
    while core.list_namespaced_pod(NAMESPACE, label_selector="app=web").items:
        assert time.monotonic() < deadline, "the pods go with their deployment"
        time.sleep(0.1)
    try:
        core.read_namespaced_pod("nobody", NAMESPACE)
        raise AssertionError("nobody is there")
    except ApiException as refused:
        assert (refused.status, refused.reason) == (404, "Not Found"), refused


ready = watches_until_ready()
runs_commands(ready[0])
patches()
applies()
has_custom_objects()
deletes()
print("done")
