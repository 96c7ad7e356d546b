// Worker threads, crypto, children, streams, http: nothing printed differs from run to run.
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const crypto = require('crypto'), fs = require('fs'), cp = require('child_process'), http = require('http'), zlib = require('zlib');
if (!isMainThread) {
  let s = 0;
  for (let i = 0; i < 3e6; i++) s = (s + i * workerData) % 1000003;
  parentPort.postMessage(s);
} else main();
async function main() {
  const workers = await Promise.all([1, 2, 3, 4].map(n => new Promise(r => new Worker(__filename, { workerData: n }).on('message', r))));
  console.log(workers);
  const pair = crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' });
  let good = 0;
  for (let i = 0; i < 200; i++) {
    const s = crypto.sign('sha256', Buffer.from('m' + i), pair.privateKey);
    good += crypto.verify('sha256', Buffer.from('m' + i), pair.publicKey, s) && !crypto.verify('sha256', Buffer.from('n'), pair.publicKey, s);
  }
  console.log('P-256', good);
  console.log(crypto.pbkdf2Sync('p', 's', 10000, 20, 'sha512').toString('hex'), await new Promise(r => crypto.scrypt('p', 's', 16, (e, k) => r(k.toString('hex')))));
  console.log(cp.execSync('seq 3 | sort -r').toString(), cp.spawnSync('sh', ['-c', 'exit 7']).status, process.execPath, process.argv0);
  console.log(cp.execFileSync(process.execPath, ['-e', 'console.log(process.execPath, 6 * 7)']).toString());
  const server = http.createServer((q, r) => r.end(q.url.toUpperCase())).listen(7011, '127.0.0.1');
  await new Promise(r => server.on('listening', r));
  const get = p => new Promise(r => http.get({ port: 7011, host: '127.0.0.1', path: p, agent: false }, m => { let d = ''; m.on('data', c => d += c).on('end', () => r(d)); }));
  console.log((await Promise.all([...Array(50).keys()].map(i => get('/p' + i)))).join(' '));
  server.close();
  const z = zlib.gzipSync(Buffer.alloc(1e6, 'abc'));
  console.log(zlib.gunzipSync(z).length, z.length < 5000);
  await fs.promises.writeFile('/tmp/f', 'x'.repeat(1e5));
  console.log((await fs.promises.readFile('/tmp/f')).length, fs.readlinkSync('/proc/self/exe'));
  process.on('SIGUSR2', () => console.log('signal'));
  process.kill(process.pid, 'SIGUSR2');
  await new Promise(r => setTimeout(r, 100));
  const w = new WebAssembly.Module(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 7, 1, 96, 2, 127, 127, 1, 127, 3, 2, 1, 0, 7, 7, 1, 3, 97, 100, 100, 0, 0, 10, 9, 1, 7, 0, 32, 0, 32, 1, 106, 11]));
  console.log(new WebAssembly.Instance(w).exports.add(40, 2));
  try { null.x; } catch (e) { console.log(e.message); }
  process.exitCode = 6;
}
