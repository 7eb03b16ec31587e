# SPDX-License-Identifier: GPL-2.0-only
"""A bad and a good example of the rules: the bad one is reported by its id alone, the good one not at all."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent

import pytest

from tablewalk.audit.rules import RULES, SCENARIO_OF, scenario_of
from tablewalk.audit.run import audit
from tablewalk.explore.rules import RULES as INVARIANTS
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
RW = "pte = pte_offset_map_rw_nolock(mm, pmd, addr, &pmdval, &ptl);\nif (!pte)\n\treturn 0;\n"
RO = "pte = pte_offset_map_ro_nolock(mm, pmd, addr, &ptl);\nif (!pte)\n\treturn 0;\n"
DONE = "pte_unmap_unlock(pte, ptl);\n"
CHECK = "if (!pmd_same(pmdval, pmdp_get_lockless(pmd)))\n\tgoto out;\n"

EXAMPLES = {
    "unchecked-null": (
        "pte = pte_offset_map(pmd, addr);\nret = pte_young(*pte);\npte_unmap(pte);\n",
        PLAIN + "ret = pte_young(*pte);\npte_unmap(pte);\n",
    ),
    "leak": (
        LOCKED + "if (pte_none(*pte)) {\n\tspin_unlock(ptl);\n\treturn 0;\n}\n" + DONE,
        LOCKED + "if (pte_none(*pte)) {\n\tpte_unmap(pte);\n\tspin_unlock(ptl);\n\treturn 0;\n}\n" + DONE,
    ),
    "double-unmap": (PLAIN + "pte_unmap(pte);\npte_unmap(pte);\n", PLAIN + "pte_unmap(pte);\n"),
    "unmap-moved": (
        LOCKED + "do {\n\tret += pte_young(*pte);\n} while (pte++, addr += PAGE_SIZE, addr != end);\n" + DONE,
        LOCKED
        + "for (; addr != end; pte++, addr += PAGE_SIZE)\n\tret += pte_young(*pte);\npte_unmap_unlock(pte - 1, ptl);\n",
    ),
    "unmap-wrong": (
        "pte = pte_offset_kernel(pmd, addr);\nret = pte_young(*pte);\npte_unmap(pte);\n",
        "pte = pte_offset_kernel(pmd, addr);\nret = pte_young(*pte);\n",
    ),
    "unmap-order": (
        PLAIN + "dst = pte_offset_map(pmd, end);\nif (!dst) {\n\tpte_unmap(pte);\n\treturn 0;\n}\n"
        "pte_unmap(pte);\npte_unmap(dst);\n",
        PLAIN + "dst = pte_offset_map(pmd, end);\nif (!dst) {\n\tpte_unmap(pte);\n\treturn 0;\n}\n"
        "pte_unmap(dst);\npte_unmap(pte);\n",
    ),
    "use-after-unmap": (
        PLAIN + "pte_unmap(pte);\nret = pte_young(*pte);\n",
        PLAIN + "ret = pte_young(*pte);\npte_unmap(pte);\n",
    ),
    "use-after-unlock": (
        LOCKED + "spin_unlock(ptl);\nset_pte_at(mm, addr, pte, entry);\npte_unmap(pte);\n",
        LOCKED + "set_pte_at(mm, addr, pte, entry);\nspin_unlock(ptl);\npte_unmap(pte);\n",
    ),
    "missing-unlock": (LOCKED + "pte_unmap(pte);\n", LOCKED + DONE),
    "unlock-unheld": (LOCKED + "spin_unlock(ptl);\n" + DONE, LOCKED + DONE),
    "sleep-while-mapped": (LOCKED + "cond_resched();\n" + DONE, LOCKED + DONE + "cond_resched();\n"),
    "live-lockptr": (
        PLAIN + "ptl = pte_lockptr(mm, pmd);\nspin_lock(ptl);\nset_pte_at(mm, addr, pte, entry);\n" + DONE,
        RW + "spin_lock(ptl);\n" + CHECK + "set_pte_at(mm, addr, pte, entry);\nout:\n" + DONE,
    ),
    "no-recheck": (
        RW + "spin_lock(ptl);\nset_pte_at(mm, addr, pte, entry);\n" + DONE,
        RW + "spin_lock(ptl);\n" + CHECK + "set_pte_at(mm, addr, pte, entry);\nout:\n" + DONE,
    ),
    "none-recheck": (
        RW + "if (!pte_none(old))\n\tgoto unmap;\nspin_lock(ptl);\nif (pte_same(ptep_get(pte), old))\n"
        "\tset_pte_at(mm, addr, pte, entry);\nspin_unlock(ptl);\nunmap:\npte_unmap(pte);\n",
        RW + "if (!pte_none(old))\n\tgoto unmap;\nspin_lock(ptl);\nif (pmd_same(pmdval, pmdp_get_lockless(pmd)) &&\n"
        "    pte_same(ptep_get(pte), old))\n\tset_pte_at(mm, addr, pte, entry);\nspin_unlock(ptl);\nunmap:\n"
        "pte_unmap(pte);\n",
    ),
    "read-only-write": (
        RO + "set_pte_at(mm, addr, pte, entry);\npte_unmap(pte);\n",
        RO + "ret = pte_young(ptep_get(pte));\npte_unmap(pte);\n",
    ),
    "endless-retry": (
        "again:\npte = pte_offset_map(pmd, addr);\nif (!pte)\n\tgoto again;\npte_unmap(pte);\n",
        "pte = pte_offset_map(pmd, addr);\nif (!pte)\n\treturn -EAGAIN;\npte_unmap(pte);\n",
    ),
    "kernel-table": (
        "pte = pte_alloc_map(&init_mm, pmd, addr);\nif (!pte)\n\treturn 0;\npte_unmap(pte);\n",
        "pte = pte_alloc_kernel(pmd, addr);\nif (!pte)\n\treturn 0;\n",
    ),
    "user-table": (
        "pmd = pmd_off(vma->vm_mm, addr);\npte = pte_offset_kernel(pmd, addr);\nret = pte_young(*pte);\n",
        "pmd = pmd_off_k(addr);\npte = pte_offset_kernel(pmd, addr);\nret = pte_young(*pte);\n",
    ),
    "undeferred-free": (
        "pmdval = pmdp_collapse_flush(vma, addr, pmd);\npte_free(mm, pmd_pgtable(pmdval));\n",
        "pmdval = pmdp_collapse_flush(vma, addr, pmd);\npte_free_defer(mm, pmd_pgtable(pmdval));\n",
    ),
    "deprecated-name": ("if (pmd_trans_unstable(pmd))\n\treturn 0;\n", PLAIN + "pte_unmap(pte);\n"),
}


def rules_of(tmp_path: Path, body: str) -> set[str]:
    source = tmp_path / "f.c"
    source.write_text(HEAD + indent(body, "\t") + "\treturn ret;\n}\n")
    return {f.rule for f in audit([source]).findings}


@pytest.mark.parametrize("rule", EXAMPLES)
def test_the_bad_example_breaks_its_rule_and_no_other(rule: str, tmp_path: Path) -> None:
    assert rules_of(tmp_path, EXAMPLES[rule][0]) == {rule}


@pytest.mark.parametrize("rule", EXAMPLES)
def test_the_good_example_breaks_none(rule: str, tmp_path: Path) -> None:
    assert rules_of(tmp_path, EXAMPLES[rule][1]) == set()


def test_every_rule_is_complete() -> None:
    """huge-api's examples are whole functions of a certain name, in a test of their own."""
    assert EXAMPLES.keys() | {"huge-api"} == RULES.keys()
    assert all(r.statement and r.source and r.unless for r in RULES.values())
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


def test_invariants_and_scenarios_are_the_explorers() -> None:
    assert {r.invariant for r in RULES.values()} - {""} <= {r.id for r in INVARIANTS}
    assert set(SCENARIO_OF.values()) <= built_in().keys()
    assert scenario_of("unchecked-null", "move_ptes") == "shmem-collapse-mremap-page"
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
