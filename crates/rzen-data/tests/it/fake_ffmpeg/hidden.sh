#!/bin/sh
# Ten packets, nine frames: the last place asked for at first, 9, is not there.
frames() {
  i=0
  while [ $i -lt "$1" ]; do
    printf 'P6\n1 1\n255\nab%d' $i
    i=$((i + 1))
  done
}
case "$*" in
*copy*framecrc*) for i in 0 1 2 3 4 5 6 7 8 9; do echo "0, $i, $i, 1, 9, 0x1"; done ;;
*framecrc*) for i in 0 1 2 3 4 5 6 7 8; do echo "0, $i, $i, 1, 9, 0x1"; done ;;
*,9\)*) frames 7 ;;
*) frames 8 ;;
esac
