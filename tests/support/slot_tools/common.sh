# The state of a machine with two slots, for the programs in this folder: one file for each value below $SLOTS.
# `put` is one write to storage; at write number $SLOTS/kill the power is lost before it.
get() { cat "$SLOTS/$1" 2>/dev/null || true; }
power() {
    n=$(($(get writes) + 1))
    echo "$n" >"$SLOTS/writes"
    if [ "$n" = "$(get kill)" ]; then
        : >"$SLOTS/power_lost"
        kill -9 "$PPID" $$
    fi
}
put() {
    power
    printf '%s' "$2" >"$SLOTS/$1.new"
    mv "$SLOTS/$1.new" "$SLOTS/$1"
}
other() { case "$1" in 1) echo 2 ;; *) echo 1 ;; esac; }
# Writes an image to a slot, which does not start until it is whole.
write_slot() {
    if [ "$1" = "$(get running)" ]; then echo "slot $1 was written while it ran" >>"$SLOTS/violations"; fi
    if [ "$1" = "$(get good)" ]; then echo "the good slot $1 was written" >>"$SLOTS/violations"; fi
    put "slot$1" partial
    put "slot$1" "$(cat "$2")"
}
