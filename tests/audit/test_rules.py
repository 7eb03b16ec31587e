# SPDX-License-Identifier: GPL-2.0-only
"""A bad and a good example of the rules: the bad one is reported by its id alone, the good one not at all."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent

import pytest

from tablewalk.audit.rules import RULES, SCENARIO_OF, scenario_of
from tablewalk.audit.run import audit
from tablewalk.explore.run import built_in

HEAD = """\
static int f(struct mm_struct *mm, struct vm_area_struct *vma, pmd_t *pmd, unsigned long addr, unsigned long end)
{
	spinlock_t *ptl;
	pmd_t pmdval;
	pte_t *pte, *dst, *start;
	pte_t entry, old;
	int ret = 0;

"""
LOCKED = "pte = pte_offset_map_lock(mm, pmd, addr, &ptl);\nif (!pte)\n\treturn 0;\n"
PLAIN = "pte = pte_offset_map(pmd, addr);\nif (!pte)\n\treturn 0;\n"
DONE = "pte_unmap_unlock(pte, ptl);\n"


def rules_of(tmp_path: Path, body: str) -> set[str]:
    source = tmp_path / "f.c"
    source.write_text(HEAD + indent(body, "\t") + "\n\treturn ret;\n}\n")
    return {f.rule for f in audit([source]).findings}


@pytest.mark.parametrize("rule", RULES)
def test_the_bad_example_breaks_its_rule_and_no_other(rule: str, tmp_path: Path) -> None:
    assert rules_of(tmp_path, RULES[rule].bad) == {rule}


@pytest.mark.parametrize("rule", RULES)
def test_the_good_example_breaks_none(rule: str, tmp_path: Path) -> None:
    assert rules_of(tmp_path, RULES[rule].good) == set()


def test_every_rule_is_complete() -> None:
    assert all(r.statement and r.source and r.unless and r.bad and r.good for r in RULES.values())
    assert [n for n, r in RULES.items() if r.invariant and not r.scenario] == ["endless-retry"]  # retries read the pmd
    without = {name for name, r in RULES.items() if not r.invariant}
    assert without == {"unmap-moved", "unmap-order", "kernel-table", "huge-api", "deprecated-name"}  # no HIGHPTE there


def test_every_table_is_named_by_the_rule_that_it_can_break() -> None:
    assert {scenario_of(rule, "move_ptes") for rule in ("user-table", "none-recheck")} == {"shmem-collapse-mremap-page"}


SLEEPER = """\
static void third(struct folio *folio)
{
	%s
}

static int second(struct folio *folio)
{
	third(folio);
	return 0;
}

"""


@pytest.mark.parametrize(
    ("body", "rules"),
    [
        ("cond_resched();", {"sleep-while-mapped"}),
        ("kmalloc(8, GFP_KERNEL);", {"sleep-while-mapped"}),
        ("kmalloc(8, GFP_ATOMIC);", set()),
        ("cpu_relax();", set()),
    ],
)
def test_a_callee_of_a_callee_that_sleeps(body: str, rules: set[str], tmp_path: Path) -> None:
    source = tmp_path / "sleeper.c"
    user = HEAD + indent(LOCKED + "second(NULL);\n" + DONE, "\t") + "\treturn ret;\n}\n"
    source.write_text(SLEEPER % body + user)
    assert {f.rule for f in audit([source]).findings} == rules


def test_what_sleeps_is_said_with_the_calls_to_it(tmp_path: Path) -> None:
    source = tmp_path / "sleeper.c"
    source.write_text(SLEEPER % "cond_resched();" + HEAD + LOCKED + "second(NULL);\n" + DONE + "\treturn ret;\n}\n")
    (finding,) = audit([source]).findings
    assert "second() may sleep (by third(), cond_resched())" in finding.message


def test_the_scenario_of_a_finding() -> None:
    """The function's own where the model has the function, or else the rule's."""
    assert set(SCENARIO_OF.values()) <= built_in().keys()
    assert scenario_of("unchecked-null", "move_ptes") == "shmem-collapse-mremap-page"
    assert scenario_of("unchecked-null", "f") == "fault-and-dontneed"
    assert scenario_of("unmap-order", "move_ptes") == ""


def test_a_huge_pte_alloc_that_maps(tmp_path: Path) -> None:
    source = tmp_path / "huge.c"
    text = "pte_t *huge_pte_alloc(struct mm_struct *mm, pmd_t *pmd, long addr)\n{\n\treturn %s(mm, pmd, addr);\n}\n"
    source.write_text(text % "pte_alloc_map")
    assert {f.rule for f in audit([source]).findings} == {"huge-api"}
    source.write_text(text % "pte_alloc_huge")
    assert audit([source]).findings == []


def test_a_callee_that_unmaps(tmp_path: Path) -> None:
    """What a static function of the same file does with what it is given is known."""
    source = tmp_path / "callee.c"
    callee = "static void done(pte_t *pte, spinlock_t *ptl)\n{\n\tpte_unmap_unlock(pte, ptl);\n}\n\n"
    source.write_text(callee + HEAD + LOCKED + "done(pte, ptl);\n\treturn ret;\n}\n")
    assert audit([source]).findings == []
    source.write_text(callee + HEAD + LOCKED + "done(pte, ptl);\nret = pte_young(*pte);\n\treturn ret;\n}\n")
    assert {f.rule for f in audit([source]).findings} == {"use-after-unmap"}


def test_a_callee_that_maps_and_rechecks(tmp_path: Path) -> None:
    """Who gets a table from it may write; without the comparison it may not."""
    source = tmp_path / "locked.c"
    callee = (
        "static pte_t *get(struct mm_struct *mm, pmd_t *pmd, long addr, spinlock_t **ptl)\n{\n\tpmd_t pmdval;\n"
        "\tpte_t *pte = pte_offset_map_rw_nolock(mm, pmd, addr, &pmdval, ptl);\n\n\tif (!pte)\n\t\treturn NULL;\n"
        "\tspin_lock(*ptl);\n%s\treturn pte;\n}\n\n"
    )
    differs = "\tif (!pmd_same(pmdval, pmdp_get_lockless(pmd)))"
    check = differs + " {\n\t\tpte_unmap_unlock(pte, *ptl);\n\t\treturn NULL;\n\t}\n"
    user = HEAD + "\tpte = get(mm, pmd, addr, &ptl);\n\tif (!pte)\n\t\treturn 0;\n\tset_pte_at(mm, addr, pte, entry);\n"
    user += indent(DONE, "\t") + "\treturn ret;\n}\n"
    source.write_text(callee % check + user)
    assert audit([source]).findings == []
    source.write_text(callee % "" + user)
    assert {f.rule for f in audit([source]).findings} == {"no-recheck"}


PAGES = "from = kmap_local_page(page);\nto = kmap_local_page(copy);\n%smemcpy(to, from, PAGE_SIZE);\n"


@pytest.mark.parametrize(
    ("body", "rules"),
    [
        (PAGES % "" + "kunmap_local(from);\nkunmap_local(to);\n", {"unmap-order"}),
        (PAGES % "" + "kunmap_local(to);\nkunmap_local(from);\n", set()),
        (PAGES % "to += addr;\n" + "kunmap_local(from);\nkunmap_local(to - addr);\n", {"unmap-order"}),
        (PAGES % "" + "kunmap_local(from);\nput_page_of(to);\n", set()),  # which may have been the first of the two
        (PAGES % "" + "kunmap_local(other);\nkunmap_local(from);\nkunmap_local(to);\n", set()),
        (PAGES % "if (end)\n\tgoto out;\n" + "out:\nkunmap_local(from);\nkunmap_local(to);\n", {"unmap-order"}),
        (PLAIN + PAGES % "" + "kunmap_local(to);\npte_unmap(pte);\nkunmap_local(from);\n", {"unmap-order"}),
        ("for (; addr != end; addr++) {\n\tfrom = kmap_local_page(page);\n\tto = kmap_atomic(copy);\n"
         "\tkunmap_atomic(to);\n\tkunmap_local(from);\n}\n", set()),
    ],
)  # fmt: skip
def test_pages_that_are_mapped_nest_too(body: str, rules: set[str], tmp_path: Path) -> None:
    assert rules_of(tmp_path, body) == rules


@pytest.mark.parametrize(
    ("body", "rules"),
    [
        ("pte = huge_pte_offset(mm, addr, end);\nif (pte)\n\tset_pte_at(mm, addr, pte, entry);\n", {"huge-api"}),
        ("pte = huge_pte_offset(mm, addr, end);\nif (pte)\n\tset_huge_pte_at(mm, addr, pte, entry);\n", set()),
        (LOCKED + "set_huge_pte_at(mm, addr, pte, entry);\n" + DONE, {"huge-api"}),
        ("pte = hugetlb_walk(vma, addr, end);\nif (pte)\n\tpte_unmap(pte);\n", {"unmap-wrong"}),
    ],
)
def test_entries_of_hugetlb_are_not_mixed_up_with_others(body: str, rules: set[str], tmp_path: Path) -> None:
    assert rules_of(tmp_path, body) == rules


def test_a_callee_that_releases_the_lock_may_sleep(tmp_path: Path) -> None:
    source = tmp_path / "wait.c"
    callee = "void wait_on(struct page *page, spinlock_t *ptl)\n{\n%s\tschedule();\n}\n\n"
    user = HEAD + indent(LOCKED + "pte_unmap(pte);\nwait_on(page, ptl);\n", "\t") + "\treturn ret;\n}\n"
    source.write_text(callee % "\tspin_unlock(ptl);\n" + user)
    assert audit([source]).findings == []
    source.write_text(callee % "" + user)
    assert {f.rule for f in audit([source]).findings} == {"sleep-while-mapped", "missing-unlock"}
