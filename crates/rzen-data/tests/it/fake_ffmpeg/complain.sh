#!/bin/sh
echo "Invalid data found when processing input" >&2
