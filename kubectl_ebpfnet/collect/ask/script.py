"""A shell script that runs many commands in one exec and marks where each ends.

An exec costs some 80 ms whatever it runs, so one exec asks a place everything. The script is
constant and comes by stdin; the commands are its positional parameters, so the shell never parses a
word of them (POSIX.1-2017, Shell Command Language 2.5.1). It runs under dash, BusyBox, bash and
mksh. Each command takes these words:

    n|o COUNT MAPS RULES WORD…   n begins a question, o is its next form, run if the last one
                             failed; MAPS is "" or names of pins, without any of which it is not run
                             (model/fact.py); RULES is "" or what selects lines (question.py), . for
                             those of the last command that had any
    @                        tc's filters of every device, in both directions

RULES of & and lines of the headers that the agent writes for its endpoints (ep_config.h) leave out,
of a list of endpoints, those whose header has none of these lines; of no endpoint if none has one.
The node's own endpoint and Envoy's stay.

In an agent's image the questions are two lanes that run side by side: the second one's output waits
in a pipe until the first has ended. Where two cores are idle this halves the time of Cilium's
commands, each of which starts a Go program for 45 ms of CPU.

The time limit of a command depends on what it may wait for. Commands that read kernel state, BPF
maps included, have none in an agent's image: they cannot hang, timeout(1) would double their time,
and a long table must not be cut; the run's deadline limits them. Commands that ask the agent over
its socket hang for as long as the agent does: they have HANG_SECONDS, and after one that hung no
other is run. All else is limited where the image has timeout(1): `ip` in a pod's image may be any
program, and must not outlive the client.

After each command the script writes a mark to stdout and to stderr, a line that only this run can
write, since it has a nonce: NONCE INDEX EXIT-CODE STATE [DIRECTION DEVICE]. STATE is 0 for a whole
output, fN,M,… for selected lines (N more were left out of the flows that were asked for, M beside
them, and what LineCounts of model/evidence.py has follows), h for a command that hung, s for one
that was not run after that.
In an agent's image the lanes would mix on stderr, where no shell writes many lines in one piece:
there what a command wrote to it, if anything, follows its output on stdout, and a mark of STATE e.
"""

from __future__ import annotations

HANG_SECONDS = 3
"""Time limit of a command that asks the agent over its socket; 50 ms are usual."""
ALL_LINES = 10**9
"""More than a rule ever keeps."""

# A line belongs to the first rule that it meets; each rule keeps the newest, by Cilium's reports,
# by the age that its NAT map gives, else by nf_conntrack's timeout. Where it has more than that,
# its lines are a heap, the oldest first. The command's exit code comes as the last line. Of a table
# of addresses, whose rows begin with ADDRESS, ADDRESS:PORT or a prefix, rows of single addresses
# that are not asked for are left out but the first few: they show the table's form. Of a JSON list
# of endpoints, as policy maps are printed, those named in RULES are left out.
_SELECT = r"""
function said(s, w, a) {
  return (a = index(s, w)) ? substr(s, a + length(w), 12) + 0 : ""
}
function age(s, a, b) {
  if ((a = said(s, "Created=")) != "") return -a
  a = said(s, "LastRxReport=") + 0
  b = said(s, "LastTxReport=") + 0
  if (b > a) a = b
  if (!a) a = said(s, "expires=") + 0
  return a ? a : $5 + 0
}
function sink(a, b, c, d, e) {
  d = when[a,b]; e = line[a,b]
  while ((c = 2 * b) <= most) {
    if (c < most && when[a,c+1] < when[a,c]) c++
    if (when[a,c] >= d) break
    when[a,b] = when[a,c]; line[a,b] = line[a,c]; b = c
  }
  when[a,b] = d; line[a,b] = e
}
function meets(a, b, c, d) {
  d = end[a]
  for (b = begin[a]; b < d; b = c) {
    c = last[b]
    while (b < c && !index($0, needle[b])) b++
    if (b == c) return 0
  }
  return 1
}
function told(s) {
  if (NR <= sample) return 1
  if (s ~ /^[0-9.]+\/32(@[0-9]+)?$/ || s ~ /^[0-9a-f]*:.*\/128(@[0-9]+)?$/) sub(/\/.*/, "", s)
  else if (s ~ /^[0-9.]+:[0-9]/) sub(/:.*/, "", s)
  else if (sub(/^\[/, "", s)) sub(/\].*/, "", s)
  else if (s !~ /^[0-9]+\.[0-9.]+$/ && s !~ /^[0-9a-f]*:[0-9a-f:.]*$/) return 1
  return s in row
}
function close_item(s) {
  if (closed) print s
  closed = 0
}
BEGIN {
  if (sub(/^&/, "", ENVIRON["RULES"])) {
    for (a = split(ENVIRON["RULES"], word, "\n"); a; a--) {
      sub(/\/ep_config\.h$/, "", word[a]); sub(/.*\//, "", word[a]); elsewhere[word[a]] = 1
    }
    blocks = 1
  } else if (sub(/^@/, "", ENVIRON["RULES"])) {
    for (a = split(ENVIRON["RULES"], word, "|"); a; a--) row[word[a]]
    rows = 1; sample = 20
  } else rules = split(ENVIRON["RULES"], rule, "\n")
  mark = nonce " "
  n = 1
  for (a = 1; a <= rules; a++) {
    d = split(rule[a], part, "\t")
    first = part[1]
    is_beside[a] = first == "-"
    begin[a] = n
    for (b = first == "-" || first == "+" ? 2 : 1; b <= d; b++) {
      e = split(part[b], word, "|")
      last[n] = n + e
      for (c = 1; c <= e; c++) needle[n++] = word[c]
    }
    end[a] = n
  }
  if (first == "+") sought = rules--
}
substr($0, 1, length(mark)) == mark { code = $2; next }
blocks && $0 != "" {
  for (; blank; blank--) print ""
  if ($0 == "  {") { item = 1; next }
  if (item && $1 == "\"EndpointID\":") {
    id = $2; gsub(/[^0-9]/, "", id); gone = id in elsewhere; out += gone
  }
  if (!gone && /^  },?$/) { closed = 1; next }
  if (!gone) {
    close_item(item ? "  }," : "  }")
    if (item) print "  {"
    print
  } else if (/^  },?$/) gone = 0
  item = 0
  next
}
$0 == "" { blank++; next }
rows {
  if (!/^[ \t]/) { of_row = told($1); six = /^\[/ }
  if (six) other6++; else if (!/^[A-Z]/) other4++
  if (of_row) print; else out++
  next
}
{
  six = /^[^ ]+ [A-Z]+ (\[|[0-9a-f]*:[0-9a-f]*:)/
  if (substr($0, 1, 4) == "TCP ") { if (six) tcp6++; else tcp4++ }
  else if (six) other6++
  else other4++
  if (sought && meets(sought)) met++
  for (a = 1; a <= rules; a++) {
    if (!meets(a)) continue
    if (kept[a] < most) {
      b = ++kept[a]
      when[a,b] = age($0); line[a,b] = $0
      next
    }
    if (!(a in full)) {
      full[a] = 1
      for (b = int(most / 2); b; b--) sink(a, b)
    }
    if (is_beside[a]) beside++
    else out++
    now = age($0)
    if (now > when[a,1]) { when[a,1] = now; line[a,1] = $0; sink(a, 1) }
    next
  }
}
END {
  for (a = 1; a <= rules; a++) for (b = 1; b <= kept[a]; b++) print line[a,b]
  if (blocks) for (; blank > 1; blank--) print ""
  printf "\n%s %d %d f%d,%d,%d,%d,%d,%d,%d\n", nonce, number, code, out, beside,
    tcp4, tcp6, other4, other6, met
  exit code
}
"""

# `eval` sees digits alone: it makes "${1}" "${2}" … of a count. In an agent's image, and where
# lines are selected, a command's stderr is kept ($e) until its output has ended.
_SCRIPT = r"""n=$1 t=$2 h=$3 s=$4 c=$5 b=$6 m=$7 r=0 H= K= x= P=/sys/fs/bpf/tc/globals; shift 7
LC_ALL=C; export LC_ALL
N='
'
T=; timeout $t sh -c : </dev/null >/dev/null 2>&1 && T=timeout
A=; command -v awk >/dev/null 2>&1 && A=1
run() {
  f=$1 k=0 p= q= e=; shift
  case $s$f in 1"&"*) f=$(elsewhere "${f#?}"); f=${f:+"&$f"};; esac
  case $s$1\ $2 in
  1cat\ *|1grep\ *|1ls\ *|1ip\ *|1ip*-save*|1tc\ *|1bpftool\ *|1cilium*\ bpf) ;;
  1cilium*|1hubble*) q=1; [ "$T" ] && p="$T $h";;
  *) [ "$T" ] && p="$T $t";;
  esac
  if ! command -v "$1" >/dev/null 2>&1; then
    r=127 e="$1: not found"
  elif [ "$y" ] && ! pinned $y; then
    r=1 e="no such file or directory: $y"
  elif [ "$q$H" = 11 ]; then
    r=124 k=s
  elif [ "$f" ] && [ "$A" ]; then
    e=$({ { $p "$@" </dev/null 2>&3 3>&- 4>&-; printf '\n%s\n' "$n $?"; } |
      RULES=$f awk -v nonce="$n" -v number=$i -v most=$m "$W" >&4 2>/dev/null 3>&- 4>&-; } 3>&1)
    r=$? k=f
  elif [ "$q" ] && ! [ "$T" ]; then
    e=$({ "$@" </dev/null 2>&1 >&4 4>&- & w=$!
      { sleep $h; kill -9 $w; } </dev/null >/dev/null 2>&1 4>&- &
      wait $w; w=$?; kill $! 2>/dev/null; exit $w; } 2>&1)
    r=$?
  elif [ "$s" ]; then
    e=$($p "$@" </dev/null 2>&1 >&4 4>&-); r=$?
  else
    $p "$@" </dev/null 4>&-; r=$?
  fi
  case $q$r in 1124|1137|1143) H=1 r=124; [ $k = 0 ] && k=h;; esac
  [ $k = f ] || printf '\n%s\n' "$n $i ${r:-255} $k$x"
  if ! [ "$s" ]; then printf '%s\n%s\n' "${e:+$e$N}" "$n $i ${r:-255} 0$x" >&2
  elif [ "$e" ]; then printf '%s\n\n%s\n' "$e" "$n $i ${r:-255} e$x"
  fi
}
elsewhere() {
  p=$1; set -- /var/run/cilium/state/[0-9]*/ep_config.h
  printf '%s\n' "$p" | grep -lsxF -f - -- "$@" >/dev/null || return
  printf '%s\n' "$p" ' * Identity: 1' ' * Identity: 8' | grep -LsxF -f - -- "$@"
}
pinned() {
  [ -e $P/cilium_lxc ] || return 0
  for w; do for d in $P/$w; do [ -e "$d" ] && return 0; done; done
  return 1
}
devices() {
  command -v tc >/dev/null 2>&1 || return
  d=$(tc qdisc show 2>/dev/null) c=0
  for w in /sys/class/net/*; do
    [ -d "$w" ] || continue
    w=${w##*/}
    case $w in
    lo) continue;;
    lxc*) case $d in
      *"qdisc clsact ffff: dev $w "*|*"qdisc ingress ffff: dev $w "*) ;; *) continue;;
      esac;;
    esac
    c=$((c+1)); [ $c -gt 200 ] && break
    for g in ingress egress; do x=" $g $w"; run '' tc filter show dev "$w" $g; done
  done
  x=
}
lane() {
  exec 4>&1
  while [ $z -gt 0 ]; do
    i=$((i+1))
    if [ "$1" = @ ]; then y=; shift; z=$((z-1)); devices; continue; fi
    g=$1 l=$2 y=$3 F=$4; shift 4; z=$((z-4-l))
    if [ "$F" = . ]; then F=$K; elif [ "$F" ]; then K=$F; fi
    if [ $g = n ] || [ "$r" != 0 ]; then
      a= j=1
      while [ $j -le $l ]; do a="$a \"\${$j}\""; j=$((j+1)); done
      eval "run \"\$F\" $a"
    fi
    shift $l
  done
}
W='SELECT'
if [ $c = $# ]; then i=0 z=$#; lane "$@"
else { shift $c; i=$b z=$#; lane "$@"; } | { i=0 z=$c; lane "$@"; cat; }
fi
exit 0
"""

SCRIPT = _SCRIPT.replace("SELECT", _SELECT).encode()
"""The script, for the stdin of `sh -s`."""
