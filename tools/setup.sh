# SPDX-License-Identifier: GPL-2.0-only
# Sourced by ./run and ./test: what the machine must have, and a virtual environment made from a lock file.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$root/.venv

say() { printf 'tablewalk: %s\n' "$*" >&2; }

# One installer at a time; a second one waits, then finds the work done.
one_at_a_time() {
    { exec {lock_fd}>"$root/.venv.lock"; } 2>/dev/null || { say "cannot write to $root"; exit 2; }
    flock "$lock_fd"
    local status=0
    "$@" || status=$?
    exec {lock_fd}>&-
    return $status
}

# quietly COMMAND...: its output is shown only if it fails.
quietly() {
    local output
    output=$("$@" 2>&1 </dev/null) || { printf '%s\n' "$output" >&2; return 1; }
}

# want PROGRAM=PACKAGES...: installs the packages of missing programs (or files) by apt when root, else names them.
# Never fatal: what comes after does without, or says that it cannot.
want() {
    local pair missing=()
    for pair; do
        # shellcheck disable=SC2206 # words are packages
        command -v "${pair%%=*}" >/dev/null || [[ -e ${pair%%=*} ]] || missing+=(${pair#*=})
    done
    ((${#missing[@]})) || return 0
    if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
        say "missing: ${missing[*]} (as root: apt-get install ${missing[*]})"
        return 0
    fi
    say "installing ${missing[*]}"
    one_at_a_time apt_install "${missing[@]}" || say "could not install ${missing[*]}; going on without"
}

apt_install() {
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=600)
    quietly "${apt[@]}" update || say "apt-get update failed; trying with the package lists that are here"
    quietly "${apt[@]}" install -y --no-install-recommends "$@"
}

find_python() {
    local name
    for name in python3 python3.14 python3.13 python3.12 python3.11; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    say "needs Python 3.11 or newer (on Debian: apt-get install python3)"
    exit 2
}

# ensure_venv LOCK: $venv/bin/python has what LOCK lists, and tablewalk itself. Cached by the lock's content;
# an installation that was interrupted is taken up again.
ensure_venv() {
    local installed=$venv/$1.installed
    local content
    content="$(sha256sum <"$root/$1") $root"
    [[ -x $venv/bin/python && $(cat "$installed" 2>/dev/null) == "$content" ]] && return
    local python
    python=$(find_python)
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then
        want "no-venv-module=$python-venv"
    fi
    one_at_a_time fill_venv "$python" "$1" "$installed" "$content"
}

fill_venv() {
    local python=$1 lock=$2 installed=$3 content=$4
    [[ -x $venv/bin/python && $(cat "$installed" 2>/dev/null) == "$content" ]] && return
    say "installing ${lock} into .venv"
    if ! [[ $(cat "$venv/made-at" 2>/dev/null) == "$root" ]] || ! "$venv/bin/python" -m pip -V >/dev/null 2>&1; then
        quietly "$python" -m venv --clear "$venv" || { say "cannot make $venv"; exit 2; }
        echo "$root" >"$venv/made-at"
    fi
    quietly "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --require-hashes \
        -r "$root/$lock" || { say "cannot install $lock (is there a network?)"; exit 2; }
    # Not PYTHONPATH: the programs that are recorded would inherit it.
    echo "$root/src" >"$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/tablewalk.pth"
    echo "$content" >"$installed"
}

# The path of Python.h, there or not.
python_header() { "$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("include") + "/Python.h")'; }

# want_kernels NAME...: what it takes to boot these kernels of `tablewalk kernels`, and to compile for them.
want_kernels() {
    local name cpu triplet pairs=("/usr/sbin/mke2fs=e2fsprogs")
    for name; do
        case $name in
            host) pairs+=("gcc=gcc libc6-dev"); continue ;;
            x86_64-*) cpu=x86_64=x86 triplet=x86-64-linux-gnu:amd64 ;;
            arm64-*) cpu=aarch64=arm triplet=aarch64-linux-gnu:arm64 ;;
            arm-*) cpu=arm=arm triplet=arm-linux-gnueabihf:armhf ;;
            x86-*) cpu=i386=x86 triplet=i686-linux-gnu:i386 ;;
            mips64-*) cpu=mips64el=mips triplet=mips64el-linux-gnuabi64:mips64el ;;
            mips32-*) cpu=mipsel=mips triplet=mipsel-linux-gnu:mipsel ;;
            s390x-*) cpu=s390x=misc triplet=s390x-linux-gnu:s390x ;;
            ppc64le-*) cpu=ppc64=ppc triplet=powerpc64le-linux-gnu:ppc64el ;;
            riscv64-*) cpu=riscv64=misc triplet=riscv64-linux-gnu:riscv64 ;;
            *) continue ;; # tablewalk says that there is none
        esac
        pairs+=("qemu-system-${cpu%=*}=qemu-system-${cpu#*=}")
        local compiler=${triplet%:*}
        pairs+=("${compiler/x86-64/x86_64}-gcc=gcc-$compiler libc6-dev-${triplet#*:}-cross")
    done
    want "${pairs[@]}"
}

kernels=(x86_64-6.1 arm64-7.x s390x-6.1 ppc64le-6.1 riscv64-7.x arm-lpae-6.1 x86-pae-6.1 mips64-6.1 mips32-6.1) # one of each architecture
