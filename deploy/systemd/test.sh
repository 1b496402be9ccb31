#!/usr/bin/env bash
# Runs the unit under a real systemd: a Debian tree booted by systemd-nspawn, two
# small clusters in it, and the daemon between them. Start with READY=1, status in
# words, sandbox, credential, restart after a kill and after a missed watchdog,
# clean stop.
#
#   deploy/systemd/test.sh [tree]
#
# tree is a Debian tree with systemd; without one it is made in the cache, which
# takes some minutes once. Needs root. Debian: apt-get install debootstrap
# systemd-container. Ends with 77 if it cannot run here.
set -euo pipefail
cd "$(dirname "$0")/../.."

skip() { printf 'NOT CHECKED: the unit under a real systemd: %s\n' "$*"; exit 77; }
[ "$(id -u)" = 0 ] || skip "not root"
command -v systemd-nspawn >/dev/null || skip "systemd-nspawn is missing"

tree=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/replicator-deploy/bookworm}
if [ ! -e "$tree/lib/systemd/systemd" ]; then
	command -v debootstrap >/dev/null || skip "debootstrap is missing"
	rm -rf "$tree.new"
	mkdir -p "$(dirname "$tree")"
	debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus bookworm "$tree.new" >"$tree.log" 2>&1 || skip "debootstrap: $(tail -1 "$tree.log")"
	mv "$tree.new" "$tree"
fi

# A copy of its own: the tree stays clean.
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
cp -a "$tree/." "$root/"

CGO_ENABLED=0 go build -trimpath -o "$root/usr/bin/replicator" ./cmd/replicator
CGO_ENABLED=0 go build -trimpath -o "$root/usr/bin/testpair" ./deploy/systemd/testpair
install -m 0644 deploy/systemd/replicator@.service "$root/etc/systemd/system/"
mkdir -p "$root/etc/replicator/secrets" "$root/etc/systemd/system/replicator@pair.service.d"
chmod 0700 "$root/etc/replicator/secrets"
printf 'a-token-of-the-test' >"$root/etc/replicator/secrets/token"
chmod 0600 "$root/etc/replicator/secrets/token"
cat >"$root/etc/replicator/pair.yaml" <<'YAML'
clusters:
  east: {bootstrap_servers: ["127.0.0.1:9091"]}
  west: {bootstrap_servers: ["127.0.0.1:9092"]}
links:
  - {from: east, to: west, topics: [orders], session_timeout: 3s}
http: {token: "file:/run/credentials/replicator@pair.service/token"}
YAML
cat >"$root/etc/systemd/system/replicator@pair.service.d/test.conf" <<'UNIT'
[Unit]
Requires=testpair.service
After=testpair.service
[Service]
LoadCredential=token:/etc/replicator/secrets/token
WatchdogSec=12
RestartSec=1
UNIT
cat >"$root/etc/systemd/system/testpair.service" <<'UNIT'
[Service]
Type=notify
ExecStart=/usr/bin/testpair
UNIT
cat >"$root/etc/systemd/system/deploy-test.service" <<'UNIT'
[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/bash /deploy-test.sh
ExecStopPost=/bin/systemctl --no-block poweroff
UNIT
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
ln -s ../deploy-test.service "$root/etc/systemd/system/multi-user.target.wants/"

cat >"$root/deploy-test.sh" <<'INSIDE'
exec >/result 2>&1
unit=replicator@pair
status() { replicator status --addr 127.0.0.1:8475 --token file:/etc/replicator/secrets/token "$@"; }
prop() { systemctl show -P "$1" $unit; }
fail() { echo "FAIL: $*"; prop StatusText; journalctl -u $unit --no-pager | tail -40; exit 1; }
until_ready() { # restarts
	for _ in $(seq 120); do
		if [ "$(prop NRestarts)" = "$1" ] && [ "$(prop ActiveState)" = active ] && status --check >/dev/null 2>&1; then return 0; fi
		sleep 0.5
	done
	return 1
}

timeout 90 systemctl start $unit || fail "start: READY=1 did not come"
echo "ok   starts, and is ready when lanes run"
for _ in $(seq 40); do prop StatusText | grep -q '^east->west copying, 2 of 2' && break; sleep 0.5; done
prop StatusText | grep -q '^east->west copying, 2 of 2' || fail "status text: $(prop StatusText)"
echo "ok   status text: $(prop StatusText)"
out=$(status) || fail "replicator status: $out"
grep -q 'up to date' <<<"$out" || fail "not up to date: $out"
echo "ok   replicator status by a token that systemd hands over"
if replicator status --addr 127.0.0.1:8475 >/dev/null 2>&1; then fail "status without the token"; fi

pid=$(prop MainPID)
[ "$(stat -c %u /proc/"$pid")" -ge 61184 ] || fail "runs as uid $(stat -c %u /proc/"$pid")"
grep -q '^CapEff:[[:space:]]*0*$' /proc/"$pid"/status || fail "has capabilities"
grep -q '^NoNewPrivs:[[:space:]]*1$' /proc/"$pid"/status || fail "may get privileges"
grep -q '^Seccomp:[[:space:]]*2$' /proc/"$pid"/status || fail "has no system call filter"
nsenter -t "$pid" -m sh -c 'echo x >/etc/x || echo x >/usr/x || echo x >/var/lib/x' 2>/dev/null && fail "can write"
echo "ok   dynamic user, no capabilities, system call filter, nothing to write to"

kill -9 "$pid"
until_ready 1 || fail "not ready again after kill -9"
echo "ok   is back after kill -9"

kill -STOP "$(prop MainPID)"
until_ready 2 || fail "not restarted by the watchdog"
journalctl -u $unit --no-pager | grep -qi 'watchdog timeout' || fail "restarted, but not by the watchdog"
echo "ok   is back after the watchdog found it hanging"

began=$(date +%s%N)
systemctl stop $unit
took=$((($(date +%s%N) - began) / 1000000))
[ "$(prop Result)" = success ] || fail "stop: $(prop Result)"
[ $took -lt 12000 ] || fail "stop took $took ms"
journalctl -u $unit --no-pager -o cat | grep -q '"msg":"stopped"' || fail "did not stop cleanly"
echo "ok   stops cleanly in $took ms"
echo "all passed"
INSIDE

# /run has to be a tmpfs of this mount namespace, and no console is wanted.
timeout 400 unshare -m sh -c 'mount --make-rprivate / && mount -t tmpfs tmpfs /run &&
	exec systemd-nspawn -D "$0" --boot --register=no --keep-unit --console=pipe --private-network' "$root" </dev/null >"$root/console.log" 2>&1 || true
[ -e "$root/result" ] || { echo "FAIL: the container did not run the test"; tail -20 "$root/console.log"; exit 1; }
cat "$root/result"
[ "$(tail -1 "$root/result")" = "all passed" ]
