# .NET Core, from its package on PyPI; null references by signals of made code
core=$(echo /mnt/project/.venv/lib/python3*/site-packages/dotnetcore2/bin)
/mnt/project/bench/engines/dotnet.sh $core .
dotnet Work.dll
