#!/bin/sh
# Takes documents from a `command` destination of ivesk-webhook: files the JSON of each version as
# FOLDER/<company>/<key>.json, for the companies that have a folder there.
#
#     [destinations.files]
#     kind = "command"
#     program = "file_into_folder.sh"
#     arguments = ["/srv/invoices"]
#
# It answers with its exit code: 0 has it, 65 does not want it and says why on standard output,
# 75 can't take it now. Whatever else happens (a full disk, a missing tool) pauses the destination too.
set -eu

folder=${1:?name the folder as the argument}
if [ ! -d "$folder" ]; then
    echo "$folder is missing; is its disk mounted?" >&2
    exit 75
fi

# What comes from elsewhere is never part of a path before it was looked at. The key is `doc_`
# and hexadecimal digits, so it always can be.
case $IVESK_COMPANY in
'' | *[!0-9A-Za-z]*)
    echo "Įmonės kodas „$IVESK_COMPANY“ netinkamas"
    exit 65
    ;;
esac
if [ ! -d "$folder/$IVESK_COMPANY" ]; then
    echo "Įmonės $IVESK_COMPANY apskaita čia netvarkoma"
    exit 65
fi

# Written beside its place, synced, then renamed: who finds the file finds all of it. The same
# document may come again; then the same file is written again.
file=$folder/$IVESK_COMPANY/$IVESK_KEY.json
cat >"$file.tmp"
sync "$file.tmp"
mv "$file.tmp" "$file"
sync "$folder/$IVESK_COMPANY"
