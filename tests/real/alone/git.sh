# git
export GIT_AUTHOR_DATE=@1700000000 GIT_COMMITTER_DATE=@1700000000 GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b
export GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
git config --global safe.directory '*'
git clone -q --single-branch --no-local /mnt/repo r 2>&1
cd r
git log --stat | sha256sum
git gc -q 2>&1
git fsck --full 2>&1 | sort
echo x >x
git add x
git commit -qm x
git rev-parse HEAD
git grep -c syscall | sha256sum
git archive HEAD docs | sha256sum
