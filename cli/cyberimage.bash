# bash completion for cyberimage. Options come from the program's own --help, so they are always those of the installed version.
_cyberimage() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]}
    local commands="generate info verify models doctor bench help"
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        mapfile -t COMPREPLY < <(compgen -W "$commands --help --version" -- "$word")
        return
    fi
    case $before in
        --format | -f) mapfile -t COMPREPLY < <(compgen -W "png jpg webp" -- "$word") && return ;;
        --backend) mapfile -t COMPREPLY < <(compgen -W "auto onednn reference" -- "$word") && return ;;
        --precision) mapfile -t COMPREPLY < <(compgen -W "auto f32 bf16" -- "$word") && return ;;
        --show-as) mapfile -t COMPREPLY < <(compgen -W "kitty iterm2 sixel blocks" -- "$word") && return ;;
        help) mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$word") && return ;;
        --model | -m)
            local names
            names=$("${COMP_WORDS[0]}" models --json 2>/dev/null | sed -n 's/^ *"name": "\([^"\\]*\)",*$/\1/p')
            mapfile -t COMPREPLY < <(
                compgen -W "$names" -- "$word"
                compgen -f -- "$word"
            )
            return
            ;;
    esac
    if [[ $word == -* ]]; then
        local options
        options=$("${COMP_WORDS[0]}" "$command" --help 2>/dev/null | grep -oE '^  .{2,4} *--[a-z-]+' | grep -oE -- '--[a-z-]+')
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word")
        return
    fi
    mapfile -t COMPREPLY < <(compgen -f -- "$word")
}
complete -o filenames -F _cyberimage cyberimage
