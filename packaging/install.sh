#!/bin/sh
# Installs @PACKAGE@ from this folder, for machines without apt. Read it first; it is all there is: files are copied,
# an account is made, nothing is fetched and nothing is started. `sh install.sh --remove` takes back what it put there and
# leaves state, logs and settings. PREFIX=/usr/local unless given.
set -eu

package=@PACKAGE@
prefix=${PREFIX:-/usr/local}
units=/etc/systemd/system
here=$(cd "$(dirname "$0")" && pwd)

if [ "$(id -u)" -ne 0 ]; then echo "please run as root" >&2; exit 1; fi

if [ "${1-}" = --remove ]; then
    for unit in "$here"/systemd/*.service "$here"/systemd/*.socket; do
        if [ -e "$unit" ]; then
            systemctl disable --now "$(basename "$unit")" 2>/dev/null || true
            rm -f "$units/$(basename "$unit")"
        fi
    done
    for page in "$here"/man/*; do rm -f "$prefix/share/man/man1/$(basename "$page")"; done
    rm -f "$prefix/bin/$package" "/etc/sysctl.d/60-$package.conf"
    echo "removed; /etc/$package, /var/lib/$package and /var/log/$package are still there"
    exit 0
fi

install -d "$prefix/bin" "$prefix/share/man/man1"
install -m 755 "$here/$package" "$prefix/bin/$package"
install -m 644 "$here"/man/* "$prefix/share/man/man1/"

if [ -d "$here/systemd" ]; then
    if ! getent passwd "$package" >/dev/null; then
        useradd --system --user-group --no-create-home --home-dir "/var/lib/$package" --shell /usr/sbin/nologin "$package"
    fi
    install -d -m 0755 "/etc/$package"
    install -d -m 0700 -o "$package" -g "$package" "/var/lib/$package"
    install -m 644 "$here/systemd/60-$package.conf" /etc/sysctl.d/
    for unit in "$here"/systemd/*.service "$here"/systemd/*.socket; do
        if [ -e "$unit" ]; then sed "s|/usr/bin/$package|$prefix/bin/$package|" "$unit" >"$units/$(basename "$unit")"; fi
    done
    systemctl daemon-reload 2>/dev/null || true
fi
if [ -e "$here/agent.yaml" ] && [ ! -e /etc/fairlead-agent/agent.yaml ]; then
    install -m 0640 -o root -g fairlead-agent "$here/agent.yaml" /etc/fairlead-agent/agent.yaml
fi

case $package in
    fairlead-agent) echo "installed; list what may be reached in /etc/fairlead-agent/agent.yaml, then: fairlead-agent enroll --token-file -" ;;
    fairlead-gateway) echo "installed; next: fairlead-gateway init --domain gw.example.com" ;;
    fairlead) echo "installed; next: fairlead login" ;;
esac
