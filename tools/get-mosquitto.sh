#!/bin/sh
# Gets a mosquitto broker for the tests into .cache/mosquitto without installing anything: as root or not.
# Uses the machine's own apt sources; package lists and archives go to private folders, so nothing of the system changes.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
target=${1:-$here/.cache/mosquitto}

if [ -x "$target/mosquitto" ] && "$target/mosquitto" -h >/dev/null 2>&1 || [ $? -eq 3 ] && [ -x "$target/mosquitto" ]; then
    echo "mosquitto is already in $target"
    exit 0
fi
for tool in apt-get dpkg dpkg-deb; do
    command -v "$tool" >/dev/null || {
        echo "get-mosquitto: $tool is missing; install mosquitto by your system's own means, then run the tests again" >&2
        exit 1
    }
done

mkdir -p "$(dirname -- "$target")"
work=$(mktemp -d "$(dirname -- "$target")/mosquitto.XXXXXX")
trap 'rm -rf "$work"' EXIT INT TERM
mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial" "$work/debs" "$work/root"

apt() {
    apt-get -q -o Debug::NoLocking=1 -o APT::Sandbox::User="$(id -un)" \
        -o Dir::State="$work/state" -o Dir::State::status=/var/lib/dpkg/status \
        -o Dir::Cache="$work/cache" -o Acquire::Retries=3 "$@"
}

apt update >"$work/log" 2>&1 || { cat "$work/log" >&2; echo "get-mosquitto: apt could not read its sources" >&2; exit 1; }
# What apt would install here is mosquitto and exactly the libraries that this machine lacks. An installed one is named too.
packages=$( { echo mosquitto; apt install --simulate --no-install-recommends mosquitto | sed -n 's/^Inst \([^ ]*\) .*/\1/p'; } | sort -u)
# shellcheck disable=SC2086 # a list of package names
(cd "$work/debs" && apt download $packages >"$work/log" 2>&1) || { cat "$work/log" >&2; exit 1; }
for deb in "$work"/debs/*.deb; do
    dpkg-deb -x "$deb" "$work/root"
done

libs=$(find "$work/root" -name '*.so*' -printf '%h\n' | sort -u | sed "s|^$work/root|\$here/root|" | paste -sd:)
cat >"$work/mosquitto" <<EOF
#!/bin/sh
here=\$(CDPATH='' cd -- "\$(dirname -- "\$0")" && pwd)
LD_LIBRARY_PATH="$libs\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}" exec "\$here/root/usr/sbin/mosquitto" "\$@"
EOF
chmod 755 "$work" "$work/mosquitto"
# Debian's mosquitto answers -h with exit status 3.
"$work/mosquitto" -h >"$work/log" 2>&1 || [ $? -eq 3 ] || { cat "$work/log" >&2; echo "get-mosquitto: it does not start" >&2; exit 1; }
rm -rf "$work/debs" "$work/state" "$work/cache" "$work/log" "$target"
mv "$work" "$target"
trap - EXIT INT TERM
echo "mosquitto is in $target"
