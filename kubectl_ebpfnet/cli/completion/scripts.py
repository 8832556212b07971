"""Scripts by which a shell completes the words of `kubectl-ebpfnet` itself; `kubectl ebpfnet` needs
none, since kubectl's own completion asks `kubectl_complete-ebpfnet`.

Each asks the program with the words so far, and reads lines of `value<TAB>description`, then `:N`
(candidates.py), which are for what stands behind the `=` of a flag. In bash, `:` and `=` part words
(COMP_WORDBREAKS), so a line is parted by blanks alone, and what stands before the last such break
of a word is cut off the values.
"""

from __future__ import annotations

from collections.abc import Mapping

_ABOUT = """# Completion of kubectl-ebpfnet in {shell}. `kubectl ebpfnet` is completed by
# kubectl's own, which asks kubectl_complete-ebpfnet on PATH: kubectl completion --help
"""

_BASH = r"""
_kubectl_ebpfnet() {
    local line=${COMP_LINE:0:COMP_POINT} words=() word said directive=0 before
    read -ra words <<<"$line"
    [[ $line == *[[:blank:]] ]] && words+=("")
    word=${words[${#words[@]} - 1]}
    [[ $word == -*=* ]] && word=${word#*=}
    before=${word%"${word##*:}"}
    COMPREPLY=()
    while IFS= read -r said; do
        case $said in
            :[0-9]*) directive=${said#:} ;;
            "$before"*) said=${said%%$'\t'*}; COMPREPLY+=("$(printf %q "${said#"$before"}")") ;;
        esac
    done < <(kubectl-ebpfnet __complete "${words[@]:1}" 2>/dev/null)
    if ((directive & 2)); then compopt -o nospace; fi
    if ! ((directive & 4)); then compopt -o default; fi
}

complete -F _kubectl_ebpfnet kubectl-ebpfnet
"""

_ZSH = r"""
_kubectl_ebpfnet() {
    local -a said values
    local each value directive=0 blank=' '
    said=("${(@f)$(kubectl-ebpfnet __complete "${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
    for each in $said; do
        if [[ $each == :<-> ]]; then
            directive=${each#:}
        else
            value=${${each%%$'\t'*}//:/\\:}
            [[ $each == *$'\t'* ]] && value+=:${each#*$'\t'}
            values+=("$value")
        fi
    done
    [[ $words[CURRENT] == -*=* ]] && compset -P '*='
    ((directive & 2)) && blank=''
    _describe -V kubectl-ebpfnet values -S "$blank" && return
    ((directive & 4)) || _files
}

compdef _kubectl_ebpfnet kubectl-ebpfnet
"""

_FISH = r"""
function __kubectl_ebpfnet
    set -l typed (commandline -opc) (commandline -ct)
    set -l said (kubectl-ebpfnet __complete $typed[2..-1] 2>/dev/null)
    set -l directive (string replace -- : '' $said[-1])
    set -e said[-1]
    if test (count $said) -eq 0; and test (math "floor($directive / 4) % 2") -eq 0
        __fish_complete_path (commandline -ct)
        return
    end
    set -l flag (string match -r -- '^-[^=]*=' (commandline -ct))
    for each in $said
        echo "$flag$each"
    end
end

complete -c kubectl-ebpfnet -e
complete -c kubectl-ebpfnet -f -a '(__kubectl_ebpfnet)'
"""

SCRIPTS: Mapping[str, str] = {
    shell: _ABOUT.format(shell=shell) + script
    for shell, script in (("bash", _BASH), ("zsh", _ZSH), ("fish", _FISH))
}
"""Shell → its script."""
