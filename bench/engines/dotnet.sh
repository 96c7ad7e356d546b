#!/bin/sh
# dotnet.sh CORE OUT: Work.cs compiled for .NET Core, whose folder is CORE (mcs, of mono).
set -eu
here=$(dirname "$0")
references=$(for file in "$1"/shared/*/*/System.*.dll; do echo "-r:$file"; done)
mcs -nostdlib -noconfig $references -out:"$2/Work.dll" "$here/Work.cs" 2>/dev/null
version=$(basename "$1"/shared/Microsoft.NETCore.App/*)
printf '{"runtimeOptions":{"framework":{"name":"Microsoft.NETCore.App","version":"%s"},
"configProperties":{"System.Globalization.Invariant":true}}}\n' "$version" >"$2/Work.runtimeconfig.json"
