// Pairs to try a fine-tune with: what people ask about a command line, and what answers it.

const EXAMPLE_PAIRS = [
  ["how do I rotate a log file?", "logrotate renames, compresses and removes old logs on a schedule."],
  ["run a script every night", "A line in the crontab starts a program at a fixed time of day."],
  ["pack a folder into one file", "tar collects files into an archive and can compress it on the way."],
  ["which process uses this port?", "ss -ltnp lists listening sockets and the programs that own them."],
  ["my disk is full", "du sums up what each folder takes, so the largest can be found and cleared."],
  ["copy only what has changed", "rsync compares both sides and transfers the differences alone."],
  ["find files changed today", "find with -mtime -1 lists what was modified in the last 24 hours."],
  ["search a word in many files", "grep -r reads every file below a folder and prints the matching lines."],
  ["keep a program running after logout", "tmux holds a session that one can leave and come back to."],
  ["undo the last commit but keep my work", "git reset --soft moves the branch back by one; the files stay."],
  ["log in without a password", "ssh-copy-id puts a public key on the server, which then knows its owner."],
  ["follow what a service prints", "journalctl -fu shows the journal of one unit and waits for new lines."],
  ["replace text in a file from a script", "sed rewrites each line that matches an expression."],
  ["make a file executable", "chmod +x sets the permission to run it."],
  ["see differences between two files", "diff -u prints removed and added lines with some context."],
  ["limit the memory of a process", "A control group caps what the processes in it may allocate."],
];

const EXAMPLE_TEXT = EXAMPLE_PAIRS.map((pair) => pair.join("\t")).join("\n");
