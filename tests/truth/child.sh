# What the programs of the truth test do: each writes into its book how it is about to end, and then
# ends that way. After $2 ends it parks, so that the books come to rest.
# Usage: child.sh KIND ENDS [SECONDS]; the books are files below $BOOKS.
book=$BOOKS/$ETERNAL_PROGRAM.$ETERNAL_REPLICA
ends=0
if [ -e "$book" ]; then
    while read -r _; do ends=$((ends + 1)); done <"$book"
fi
if [ "$ends" -ge "$2" ]; then
    echo $$ >"$book.parked"
    exec sleep 1000
fi

die() {
    echo "signal $1" >>"$book"
    kill "-$1" $$
}

case $1 in
codes)
    sleep "$3"
    code=$((ends * 37 % 256))
    [ $((ends % 5)) -eq 0 ] && code=0
    echo "exit $code" >>"$book"
    exit $code
    ;;
signals)
    case $((ends % 8)) in
    0) die KILL ;; 1) die SEGV ;; 2) die ABRT ;; 3) die TERM ;;
    4) die BUS ;; 5) die HUP ;; 6) die USR1 ;; 7) die INT ;;
    esac
    ;;
dumps) die SEGV ;;
parents)
    sleep 1000 &
    echo "exit 3" >>"$book"
    exit 3
    ;;
burners)
    i=0
    while [ $i -lt 100000 ]; do i=$((i + 1)); done
    times >>"$book.times"
    echo "exit 4" >>"$book"
    exit 4
    ;;
# Those whose end is the test's doing tell it when they can be ended.
victims)
    echo $$ >>"$book.born"
    exec sleep 1000
    ;;
stubborn)
    trap '' TERM
    echo $$ >>"$book.born"
    while :; do sleep 1000; done
    ;;
esac
