#!/bin/busybox sh
# The first process of dom0: starts Xen's daemons, runs the scenario in /scenario.sh, and writes
# /out to the disk as an archive.
/bin/busybox mkdir -p /proc /sys /dev /tmp /out /run/lock /run/xen /run/xenstored \
    /var/lib/xen /var/log/xen /var/lock /etc/xen
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts
mount -t tmpfs -o size=90% tmpfs /out
echo 'autoballoon="off"' >/etc/xen/xl.conf
hostname lab-dom0
. /settings.sh
while read -r module; do
    insmod "$module" || echo "LAB-WARNING $module"
done </modules/order
mount -t xenfs xenfs /proc/xen
[ -d /var/run ] || ln -s /run /var/run
xenstored || echo "LAB-FAILED xenstored"
"$LIBEXEC"/xen-init-dom0 || echo "LAB-FAILED xen-init-dom0"
xenconsoled --log=guest --log-dir=/out
xl info | grep -E "xen_version|xen_caps|free_memory"

# Starts the guest whose configuration is /guests/NAME.cfg, and waits until it is up.
start() {
    echo "LAB-START $1"
    xl create -q "/guests/$1.cfg" || { cat /var/log/xen/*.log; echo "LAB-FAILED create $1"; return; }
    tries=0
    until grep -q LAB-READY "/out/guest-$1.log" 2>/dev/null; do
        sleep 1
        tries=$((tries + 1))
        [ $((tries % 20)) -ne 0 ] || tail -n 1 "/out/guest-$1.log"
        [ $tries -lt 400 ] || { echo "LAB-FAILED $1"; tail -n 20 "/out/guest-$1.log"; return; }
    done
}

# Waits until the machine was dumped from outside.
freeze() {
    echo "LAB-FREEZE-$1"
    sleep "${2:-10}"
}

. /scenario.sh
xl list -v >/out/list.txt
cat /out/list.txt
if [ -n "$DISK" ]; then
    tar -c -C /out -f "$DISK" . && sync
fi
echo LAB-SAVED
[ -z "$CRASH" ] || echo c >/proc/sysrq-trigger
exec sleep 1000000
