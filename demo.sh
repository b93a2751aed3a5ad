#!/bin/sh
# The whole road on real text: train, export, verify, predict, serve, ask. `make demo`, or
# `sh demo.sh PYTHON` with a Python that has requirements.txt installed.
set -eu
cd "$(dirname "$0")"
python=${1:-.venv/bin/python}
server= log=

finish() {
    trap - EXIT INT TERM
    if [ -n "$server" ]; then
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    if [ -n "$log" ]; then rm -f "$log"; fi
}
trap finish EXIT
trap 'finish; exit 130' INT
trap 'finish; exit 143' TERM

run() {  # show a command so that it can be copied, then run it
    printf '\n$ %s\n' "$1"
    eval "$1"
}

if [ -e runs/demo/run.json ]; then
    printf '\nruns/demo is kept; delete runs/demo and artifacts/demo to train again.\n'
elif [ -e artifacts/demo ]; then
    echo "error: artifacts/demo is there but its run is not. Delete artifacts/demo." >&2
    exit 2
else
    run "$python -m tf_pipeline train --task classify --train vader:tweets --backbone minilm \
--max-len 64 --epochs 2 --learning-rate 1e-4 --out runs/demo"
fi

if [ -e artifacts/demo/manifest.json ]; then
    printf '\nartifacts/demo is kept; delete it to export again.\n'
else
    run "$python -m export convert runs/demo --out artifacts/demo"
fi
run "$python -m export verify artifacts/demo"
run "$python -m tf_pipeline predict artifacts/demo 'what a wonderful day' 'worst service ever'"

command="$python -m serving artifacts/demo --port 0"
printf '\n$ %s &\n' "$command"
log=$(mktemp)
$command 2>"$log" &
server=$!
seconds=0
url=
while [ -z "$url" ]; do
    if ! kill -0 "$server" 2>/dev/null || [ "$seconds" -ge 60 ]; then
        cat "$log" >&2
        echo "error: The server did not start within $seconds s; its output is above." >&2
        exit 1
    fi
    sleep 1
    seconds=$((seconds + 1))
    url=$(sed -n 's/^Serving .* at \(http:[^ ]*\).*/\1/p' "$log")
done
cat "$log"

# Straight to the server: a proxy in the environment would not find this computer's 127.0.0.1.
"$python" - "$url/v1/models/demo:predict" <<'END'
import sys
from urllib.request import ProxyHandler, build_opener

url, body = sys.argv[1], '{"instances": ["what a wonderful film"]}'
print(f"\nPOST {url}\n{body}\n")
with build_opener(ProxyHandler({})).open(url, body.encode(), timeout=30) as answer:
    print(answer.read().decode())
END
printf '\nDone. The trained run is in runs/demo, the files for every device in artifacts/demo.\n'
