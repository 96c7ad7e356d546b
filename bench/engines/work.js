// Hot loops, code made from text, WebAssembly, worker threads, signatures, files.
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const crypto = require('crypto'), fs = require('fs'), os = require('os'), path = require('path');
const { execFileSync } = require('child_process');

function sieve(n) {
  const composite = new Uint8Array(n);
  let found = 0;
  for (let i = 2; i < n; i++) {
    if (composite[i]) continue;
    found++;
    for (let j = i * 2; j < n; j += i) composite[j] = 1;
  }
  return found;
}

if (!isMainThread) {
  parentPort.postMessage(sieve(workerData));
} else {
  const add = new WebAssembly.Instance(new WebAssembly.Module(new Uint8Array([
    0, 97, 115, 109, 1, 0, 0, 0, 1, 7, 1, 96, 2, 127, 127, 1, 127, 3, 2, 1, 0, 7, 7, 1, 3, 97, 100, 100, 0, 0,
    10, 9, 1, 7, 0, 32, 0, 32, 1, 106, 11]))).exports.add;
  let sum = 0;
  for (let i = 0; i < 1e8; i++) sum = add(sum, i);
  console.log('wasm', sum, 'sieve', sieve(2e7));
  let made = 0;
  for (let i = 0; i < 20000; i++) made += new Function('x', `let s = 0; for (let j = 0; j < 50; j++) s += x * ${i}; return s;`)(2);
  console.log('made', made);
  const { privateKey, publicKey } = crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' });
  let good = 0;
  for (let i = 0; i < 1000; i++) {
    const text = Buffer.from(`text ${i}`), signature = crypto.sign('sha256', text, privateKey);
    if (crypto.verify('sha256', text, publicKey, signature)) good++;
    if (crypto.verify('sha256', Buffer.from('other'), publicKey, signature)) good--;
  }
  console.log('signatures', good);
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'engine-'));
  for (let i = 0; i < 300; i++) fs.writeFileSync(path.join(folder, `f${i}`), 'x'.repeat(i));
  console.log('files', fs.readdirSync(folder).map(f => fs.statSync(path.join(folder, f)).size).reduce((a, b) => a + b));
  fs.rmSync(folder, { recursive: true });
  console.log('child', execFileSync('/bin/echo', ['hello']).toString().trim());
  Promise.all([1e7, 2e7, 3e7].map(n => new Promise(done => new Worker(__filename, { workerData: n }).on('message', done))))
    .then(found => console.log('workers', found.join(' ')));
}
