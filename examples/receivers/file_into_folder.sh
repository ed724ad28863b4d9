#!/bin/sh
# Receives documents of a `command` destination of ivesk-webhook: files the JSON of each version as
# FOLDER/<company>/<key>.json, for the companies that have a folder there.
#
#     [destinations.files]
#     kind = "command"
#     program = "file_into_folder.sh"
#     arguments = ["/srv/invoices"]
#
# Exit codes: 0 accepts, 65 rejects with a message on standard output, 75 is unavailable, as is any
# other failure (a full disk, a missing tool).
set -eu

folder=${1:?name the folder as the argument}
if [ ! -d "$folder" ]; then
    echo "$folder is missing; is its disk mounted?" >&2
    exit 75
fi

# Untrusted text is checked before it becomes part of a path. The key needs no check: it is `doc_`
# and hexadecimal digits.
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

# Written to a temporary name, synced, then renamed: the file is complete when it appears. The same
# document may be delivered again; then the same file is written again.
file=$folder/$IVESK_COMPANY/$IVESK_KEY.json
cat >"$file.tmp"
sync "$file.tmp"
mv "$file.tmp" "$file"
sync "$folder/$IVESK_COMPANY"
