#!/bin/busybox sh
# The first process of a guest.
/bin/busybox mkdir -p /proc /sys /dev /tmp
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
hostname "lab-$(sed -n 's/.*lab_name=\([a-z0-9]*\).*/\1/p' /proc/cmdline)"
. /report.sh
echo "LAB-READY"
exec sleep 1000000
