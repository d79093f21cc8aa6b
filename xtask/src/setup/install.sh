#!/bin/sh
# Installs Debian packages without starting their services and without making a PostgreSQL cluster.
# $1: services to leave disabled at boot (words); the rest: packages. Everything else that it changes it puts back.
set -eu

policy=/usr/sbin/policy-rc.d
saved=$policy.foobar-saved
mark='# made by cargo xtask setup; safe to delete'
clusters=/etc/postgresql-common/createcluster.d
cluster=$clusters/foobar-xtask.conf

restore() {
    rm -f "$cluster"
    rmdir "$clusters" 2>/dev/null || true
    if [ -e "$policy" ] && grep -qF "$mark" "$policy"; then rm -f "$policy"; fi
    if [ -e "$saved" ]; then mv "$saved" "$policy"; fi
}
trap restore EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# A run that was killed may have left its own behind.
restore
if [ -e "$policy" ]; then mv "$policy" "$saved"; fi
printf '#!/bin/sh\n%s\nexit 101\n' "$mark" >"$policy"
chmod 0755 "$policy"
mkdir -p "$clusters"
echo 'create_main_cluster = false' >"$cluster"

services=$1
shift
export DEBIAN_FRONTEND=noninteractive
apt-get -o DPkg::Lock::Timeout=600 install --yes --no-install-recommends "$@"

# Both kinds of machine: with systemd and with init scripts.
for service in $services; do
    deb-systemd-helper disable "$service.service" || true
    update-rc.d "$service" disable || true
done
