// SPDX-License-Identifier: GPL-2.0-only
// A page-table map whose result may be used on a path that has not compared it: coccinelle's view of `unchecked-null`.

@map@
expression x;
position p;
identifier f =~ "^(__)?(pte_offset_map(_(lock|nolock|ro_nolock|rw_nolock))?|pte_alloc_map(_lock)?|get_locked_pte)$";
@@
x@p = f(...)

@alias@
expression map.x, y;
position map.p;
identifier map.f;
@@
y = x@p = f(...)

// A test in the same condition, as if (!(pte = pte_offset_map(pmd, addr))).
@inside@
expression map.x;
position map.p;
identifier map.f;
statement S1, S2;
@@
if (<+... x@p = f(...) ...+>) S1 else S2

@aliased exists@
expression map.x, alias.y;
position map.p;
identifier map.f;
@@
y = x@p = f(...)
... when != x = f(...)
\( y == NULL \| y != NULL \| IS_ERR_OR_NULL(y) \)

@used depends on !inside && !aliased exists@
expression map.x, e, z;
position map.p;
identifier map.f, g;
identifier member;
position q;
@@
x@p = f(...)
... when != \( x == NULL \| x != NULL \| IS_ERR_OR_NULL(x) \)
    when != \( likely(x) \| unlikely(x) \| z = x \)
    when != x = e
\( *x@q \| x@q->member \| x@q[...] \| x@q++ \| ++x@q \| x@q + e \| x@q - e \| x@q += e \| g@q(..., x, ...) \)

// A test to the left of the use, as if (!pte || !pte_same(ptep_get(pte), entry)).
@guarded@
expression map.x;
position used.q;
identifier g;
@@
\( x == NULL || <+... \( *x@q \| g@q(..., x, ...) \) ...+>
\| x != NULL && <+... \( *x@q \| g@q(..., x, ...) \) ...+> \)

@script:python depends on !guarded@
p << map.p;
f << map.f;
use << used.q;
@@
print(f"{p[0].file}:{p[0].line}: {f}")
