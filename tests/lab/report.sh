#!/bin/busybox sh
# Reports the kernel stack of each task, as the kernel itself unwinds it, so that the reader's
# backtraces can be compared. Then starts a program that never leaves user mode.
# Tasks whose stacks are known: sleeping in a pipe and in nanosleep.
mkfifo /tmp/pipe
cat /tmp/pipe >/dev/null &
sleep 100000 &
sleep 1
read -r version </proc/version
echo "LAB-VERSION $version"
# Emulation is slow: no process is started for a task.
for task in /proc/[0-9]*; do
    while read -r key value; do
        case $key in
        Name:) name=$value ;;
        State:) state=${value%% *} ;;
        Pid:) break ;;
        esac
    done 2>/dev/null <"$task/status" || continue
    echo "LAB-TASK $value $state $name"
    while read -r address frame; do
        echo "LAB-FRAME $frame"
    done 2>/dev/null <"$task/stack"
done
# The last CPU never leaves user mode.
last=$(($(grep -c ^processor /proc/cpuinfo) - 1))
taskset $((1 << last)) /bin/spin &
sleep 2
