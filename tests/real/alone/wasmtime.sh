# wasmtime, in python; 5 MB of modules, traps by signals of made code, threads
export PYTHONPATH=$(echo /mnt/project/.venv/lib/python3*/site-packages)
python3 /mnt/project/bench/engines/wasm.py
