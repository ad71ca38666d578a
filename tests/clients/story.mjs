// What a program with the JavaScript client does: an informer, patches, exec, logs, deletion.
//
// Runs against $KUBECONFIG; ends with 0 when everything was as it should be.
import assert from 'node:assert/strict';
import { Writable, PassThrough } from 'node:stream';
import { createRequire } from 'node:module';

const k8s = await import(createRequire(`${process.env.NODE_PACKAGES}/`).resolve('@kubernetes/client-node'));

const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);
const namespace = 'default';
// What never comes is a failure that says so.
setTimeout(() => {
  console.error('waited in vain for three minutes');
  process.exit(1);
}, 180_000).unref();

/** Resolves with the first object for which `event` fires and `fits` says so. */
const seen = (informer, event, fits) =>
  new Promise((resolve) => {
    informer.on(event, (object) => fits(object) && resolve(object));
  });

const pod = (name) => ({
  metadata: { name, labels: { app: 'js' } },
  spec: {
    terminationGracePeriodSeconds: 0,
    containers: [{ name: 'main', image: 'busybox:1.35', command: ['sh', '-c', 'echo ready; exec sleep 1000'] }],
  },
});

const isReady = (pod) => (pod.status?.conditions ?? []).some((one) => one.type === 'Ready' && one.status === 'True');

class Collected extends Writable {
  text = '';
  _write(chunk, _encoding, done) {
    this.text += chunk;
    done();
  }
}

const path = `/api/v1/namespaces/${namespace}/pods`;
const list = () => core.listNamespacedPod({ namespace, labelSelector: 'app=js' });
const informer = k8s.makeInformer(config, path, list, 'app=js');
informer.on('error', (error) => {
  // That is how it says that it was stopped.
  if (error.type === 'aborted') return;
  console.error(error);
  process.exit(1);
});
const added = seen(informer, 'add', (pod) => pod.metadata.name === 'a');
const ready = seen(informer, 'update', (pod) => pod.metadata.name === 'a' && isReady(pod));
const changed = seen(informer, 'update', (pod) => pod.metadata.annotations?.seen === 'yes');
const deleted = seen(informer, 'delete', (pod) => pod.metadata.name === 'a');
await informer.start();
await core.createNamespacedPod({ namespace, body: pod('a') });
await added;
await ready;
assert.equal(informer.get('a', namespace).metadata.name, 'a');

const patched = await core.patchNamespacedPod(
  { name: 'a', namespace, body: { metadata: { annotations: { seen: 'yes' } } } },
  k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.MergePatch),
);
assert.equal(patched.metadata.annotations.seen, 'yes');
await changed;
const operations = [{ op: 'add', path: '/metadata/labels/tier', value: 'front' }];
await core.patchNamespacedPod(
  { name: 'a', namespace, body: operations },
  k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.JsonPatch),
);
assert.equal((await core.readNamespacedPod({ name: 'a', namespace })).metadata.labels.tier, 'front');

const [out, err, input] = [new Collected(), new Collected(), new PassThrough()];
const status = await new Promise((resolve, reject) => {
  const command = ['sh', '-c', 'read line; echo got $line; echo err >&2; exit 3'];
  new k8s.Exec(config).exec(namespace, 'a', 'main', command, out, err, input, false, resolve).catch(reject);
  input.write('typed\n');
});
assert.deepEqual([out.text, err.text], ['got typed\n', 'err\n']);
assert.equal(status.status, 'Failure');
assert.equal(status.details.causes[0].message, '3');
assert.equal(await core.readNamespacedPodLog({ name: 'a', namespace }), 'ready\n');

const objects = k8s.KubernetesObjectApi.makeApiClient(config);
const map = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'js', namespace }, data: { a: '1' } };
await objects.create(map);
assert.equal((await objects.read(map)).data.a, '1');
await assert.rejects(objects.create(map), (error) => error.code === 409);

await core.deleteNamespacedPod({ name: 'a', namespace });
await deleted;
await informer.stop();
console.log('done');
// A stopped informer may still hold a connection.
process.exit(0);
