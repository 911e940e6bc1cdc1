# Completion of cyberimage for bash. Options come from --help, so that they are never out of date; values from what is on the machine.

# The long and short options of a command.
_cyberimage_options() {
    "${1}" "${2}" --help 2>/dev/null | grep -oE '^  (-[A-Za-z],|   ) --[a-z-]+' | grep -oE -- '-[A-Za-z]|--[a-z-]+' | sort -u
}

# The values that an option may have, one a line; nothing for an option without listed values.
_cyberimage_values() {
    case "${2}" in
    --backend) printf '%s\n' auto cuda onednn reference ;;
    --precision) printf '%s\n' auto f32 bf16 fp8 int8 ;;
    --format | -f) printf '%s\n' png jpg webp ;;
    --role) printf '%s\n' admin user viewer ;;
    --show-as) printf '%s\n' kitty iterm2 sixel blocks ;;
    --model | -m) "${1}" models --json 2>/dev/null | sed -n 's/^    "name": "\(.*\)",$/\1/p' ;;
    esac
}

_cyberimage() {
    local program=${COMP_WORDS[0]} word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
    local commands='serve generate info verify models doctor bench config user audit backup fsck ping worker help'
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        mapfile -t COMPREPLY < <(compgen -W "${commands} --help --version" -- "${word}")
        return
    fi
    if [[ ${COMP_WORDS[1]} == help ]]; then
        mapfile -t COMPREPLY < <(compgen -W "${commands}" -- "${word}")
        return
    fi
    if [[ ${COMP_WORDS[1]} == audit && ${word} != -* && ${before} != -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W 'list export head verify' -- "${word}")
        return
    fi
    if [[ ${COMP_WORDS[1]} == user && ${word} != -* && ${before} == user ]]; then
        mapfile -t COMPREPLY < <(compgen -W 'list add password role disable enable remove' -- "${word}")
        return
    fi
    if [[ ${word} == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(_cyberimage_options "${program}" "${COMP_WORDS[1]}")" -- "${word}")
        return
    fi
    case "${before}" in
    --cache)
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -d -- "${word}")
        ;;
    --backend | --precision | --format | -f | --show-as | --role)
        mapfile -t COMPREPLY < <(compgen -W "$(_cyberimage_values "${program}" "${before}")" -- "${word}")
        ;;
    --model | -m)
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -W "$(_cyberimage_values "${program}" "${before}")" -- "${word}"
            compgen -f -- "${word}")
        ;;
    --negative | -n | --width | -W | --height | -H | --steps | -s | --guidance | -g | --seed | -S | --count | -c | \
        --strength | --quality | -q | --threads | -t | --device | --device-memory | --runs | -r | --fd | --idle | --parent) ;;
    *)
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -f -- "${word}")
        ;;
    esac
}

complete -F _cyberimage cyberimage
