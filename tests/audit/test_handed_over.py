# SPDX-License-Identifier: GPL-2.0-only
"""Tables handed over between functions: by out-parameters, in a struct, with a lock that a flag decides about.

Each is a shape that the kernel has, followed without a report, and the same with an error in it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tablewalk.audit.run import audit

PIN = """
static int pin(pmd_t *pmd, long addr, pte_t **ptep, spinlock_t **ptlp)
{
	spinlock_t *ptl;
	pte_t *pte;

	if (pmd_leaf(*pmd)) {
		ptl = &current->mm->page_table_lock;
		spin_lock(ptl);
		*ptep = NULL;
		*ptlp = ptl;
		return 1;
	}
	pte = pte_offset_map_lock(current->mm, pmd, addr, &ptl);
	if (!pte)
		return 0;
	*ptep = pte;
	*ptlp = ptl;
	return 1;
}

static void copy(pmd_t *pmd, long addr, long n)
{
	while (n) {
		pte_t *pte;
		spinlock_t *ptl;

		while (!pin(pmd, addr, &pte, &ptl))
			if (fault(addr))
				return;
		n -= copied(addr);
		if (pte)
			pte_unmap_unlock(pte, ptl);
		else
			spin_unlock(ptl);
	}
}
"""
FLAG = """
static int adjust(struct mm_struct *mm, pmd_t *pmd, long addr, pte_t entry, bool need_lock)
{
	spinlock_t *ptl;
	pmd_t pmdval;
	pte_t *pte = pte_offset_map_rw_nolock(mm, pmd, addr, &pmdval, &ptl);

	if (!pte)
		return 0;
	if (need_lock) {
		spin_lock(ptl);
		if (!pmd_same(pmdval, pmdp_get_lockless(pmd))) {
			pte_unmap_unlock(pte, ptl);
			return 0;
		}
	}
	set_pte_at(mm, addr, pte, entry);
	if (need_lock)
		spin_unlock(ptl);
	pte_unmap(pte);
	return 1;
}
"""
STRUCT = """
static int swap(struct vm_fault *vmf)
{
	if (!prepare(vmf))
		goto out;
	if (vmf->pte)
		pte_unmap(vmf->pte);
	return 0;
out:
	if (vmf->pte)
		pte_unmap(vmf->pte);
	return 1;
}

static int swapin(struct mm_struct *mm, pmd_t *pmd, long addr, long end)
{
	pte_t *pte = NULL;
	int ret = 0;

	for (; addr < end; addr += PAGE_SIZE) {
		struct vm_fault vmf = { .address = addr };

		if (!pte++) {
			pte = pte_offset_map(pmd, addr);
			if (!pte)
				return -EAGAIN;
		}
		if (pte_none(ptep_get(pte)))
			continue;
		vmf.pte = pte;
		ret |= swap(&vmf);
		pte = NULL;
	}
	if (pte)
		pte_unmap(pte);
	return ret;
}
"""
MOVES = """
static void around(struct vm_fault *vmf, struct range *r)
{
	vmf->pte = pte_offset_map_lock(vmf->mm, vmf->pmd, vmf->address, &vmf->ptl);
	if (!vmf->pte)
		return;
	do {
		vmf->pte += r->index - r->last;
		map_one(vmf, r);
	} while (next(r));
	pte_unmap_unlock(vmf->pte, vmf->ptl);
}
"""
WALK = """
static bool map(struct walk *w, spinlock_t **ptlp)
{
	if (w->sync) {
		w->pte = pte_offset_map_lock(w->mm, w->pmd, w->address, &w->ptl);
		*ptlp = w->ptl;
		return !!w->pte;
	}
	w->pte = pte_offset_map_ro_nolock(w->mm, w->pmd, w->address, ptlp);
	return false;
}

static bool walk(struct walk *w)
{
	spinlock_t *ptl;
	bool found;

	w->pte = NULL;
	w->ptl = NULL;
	if (!map(w, &ptl) && !w->pte)
		return false;
	if (!w->ptl) {
		spin_lock(ptl);
		w->ptl = ptl;
	}
	found = pte_present(ptep_get(w->pte));
	pte_unmap_unlock(w->pte, w->ptl);
	return found;
}
"""
OWN_MM = """
static void poke(pmd_t *pmd, long addr)
{
	spinlock_t *ptl;
	pte_t *pte = get_locked_pte(text_poke_mm, addr, &ptl);

	if (!pte)
		return;
	set_pte_at(text_poke_mm, addr, pte, mk(addr));
	pte_unmap_unlock(pte, ptl);
}
"""


def rules_of(tmp_path: Path, text: str) -> set[str]:
    source = tmp_path / "f.c"
    source.write_text(text)
    return {f.rule for f in audit([source]).findings}


@pytest.mark.parametrize("text", [PIN, FLAG, STRUCT, MOVES, WALK, OWN_MM])
def test_the_shapes_are_followed(text: str, tmp_path: Path) -> None:
    assert rules_of(tmp_path, text) == set()


@pytest.mark.parametrize(
    ("text", "right", "wrong", "rule"),
    [
        (PIN, "\t\tif (pte)\n\t\t\tpte_unmap", "\t\tif (!pte)\n\t\t\tpte_unmap", "leak"),
        (PIN, "pte_unmap_unlock(pte, ptl)", "pte_unmap(pte)", "missing-unlock"),
        (FLAG, "\t\tspin_lock(ptl);\n", "", "use-after-unlock"),
        (FLAG, "\tif (need_lock)\n\t\tspin_unlock", "\tif (addr)\n\t\tspin_unlock", "missing-unlock"),
        (STRUCT, "\t\tpte = NULL;\n", "", "double-unmap"),
        (STRUCT, "ret |= swap(&vmf);", "ret |= 1;", "leak"),
        (MOVES, "\t\tmap_one(vmf, r);\n", "", "unmap-moved"),
        (WALK, "\tif (!w->ptl) {\n", "\tif (w->sync) {\n", "missing-unlock"),
        (OWN_MM, "text_poke_mm, addr, &ptl", "&init_mm, addr, &ptl", "kernel-table"),
    ],
)
def test_an_error_in_them_is_found(text: str, right: str, wrong: str, rule: str, tmp_path: Path) -> None:
    assert text.count(right) == 1
    assert rule in rules_of(tmp_path, text.replace(right, wrong))


FAULT = """
static vm_fault_t reuse(struct vm_fault *vmf)
{
	set_pte_at(vmf->mm, vmf->address, vmf->pte, vmf->entry);
	pte_unmap_unlock(vmf->pte, vmf->ptl);
	return 0;
}

static vm_fault_t fault(struct vm_fault *vmf)
{
	if (wait_for(vmf))
		return VM_FAULT_RETRY;
	vmf->pte = pte_offset_map_lock(vmf->mm, vmf->pmd, vmf->address, &vmf->ptl);
	if (!vmf->pte)
		return 0;
	if (pte_write(ptep_get(vmf->pte)))
		return reuse(vmf);
	pte_unmap_unlock(vmf->pte, vmf->ptl);
	return 0;
}
"""


@pytest.mark.parametrize(
    ("right", "wrong", "rule"),
    [
        ("\t\treturn reuse(vmf);\n\tpte_unmap_unlock(vmf->pte, vmf->ptl);", "\t\treturn reuse(vmf);", "leak"),
        ("->entry);\n\tpte_unmap_unlock(vmf->pte, vmf->ptl);", "->entry);\n\tpte_unmap(vmf->pte);", "missing-unlock"),
        ("\tset_pte_at(", "\tspin_unlock(vmf->ptl);\n\tset_pte_at(", "use-after-unlock"),
        ("\tif (!vmf->pte)\n\t\treturn 0;\n", "", "unchecked-null"),
    ],
)
def test_a_fault_handler_ends_with_nothing_mapped(right: str, wrong: str, rule: str, tmp_path: Path) -> None:
    """Its result does not tell a caller whether something is."""
    assert rules_of(tmp_path, FAULT) == set()
    assert FAULT.count(right) == 1
    assert rule in rules_of(tmp_path, FAULT.replace(right, wrong))


LOCKS = """
static int both(struct mm_struct *mm, pmd_t *pmd, long addr, pte_t entry)
{
	spinlock_t *pml = pmd_lock(mm, pmd), *ptl = NULL;
	pte_t *pte = pte_offset_map_rw_nolock(mm, pmd, addr, &dummy_pmdval, &ptl);
	pte_t old;

	if (!pte)
		goto out;
	old = ptep_get_lockless(pte);
	if (ptl != pml)
		spin_lock_nested(ptl, SINGLE_DEPTH_NESTING);
	if (pte_same(ptep_get(pte), old))
		account(mm, old);
	pte_unmap_unlock(pte, ptl);
out:
	if (pml != ptl)
		spin_unlock(pml);
	return 0;
}
"""


@pytest.mark.parametrize(
    ("right", "wrong", "rule"),
    [
        ("\tif (pml != ptl)\n\t\tspin_unlock(pml);\n", "", "missing-unlock"),
        ("\tif (pml != ptl)\n\t\tspin_unlock(pml);\n", "\tspin_unlock(pml);\n", "unlock-unheld"),
        ("\tif (pte_same(ptep_get(pte), old))\n\t", "", "no-recheck"),
    ],
)
def test_the_lock_of_the_table_above_may_be_the_same(right: str, wrong: str, rule: str, tmp_path: Path) -> None:
    assert rules_of(tmp_path, LOCKS) == set()
    assert LOCKS.count(right) == 1
    assert rule in rules_of(tmp_path, LOCKS.replace(right, wrong))
