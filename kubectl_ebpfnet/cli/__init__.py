"""The command line: words → a frozen request → a run → text. The only importer of typer.

app.py         main(): exit codes, errors, interrupts; the commands, imported when asked for
command.py     how a command reads its flags and shows its help: as kubectl does
options.py     kubectl's own flags, once
words.py       SOURCE, DESTINATION, durations: pure
terminal.py    stdout for data, stderr for talk
path.py capture.py version.py options_command.py completion.py   one file a command
complete.py    what the shell may complete a word to
"""
