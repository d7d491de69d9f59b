import re
import subprocess

from fer_exp.runs.environment import git_commit


def test_git_commit_is_that_of_the_source_not_of_a_repository_around_it(tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    installed = tmp_path / "lib/source.py"
    installed.parent.mkdir()
    installed.write_text("")
    author = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    subprocess.run(["git", *author, "-C", tmp_path, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    assert git_commit(installed) is None
    subprocess.run(["git", "-C", tmp_path, "add", "."], check=True)
    subprocess.run(["git", *author, "-C", tmp_path, "commit", "-q", "-m", "ours"], check=True)
    assert re.fullmatch("[0-9a-f]{40}", git_commit(installed))
    installed.write_text("changed")
    assert git_commit(installed).endswith("-dirty")
