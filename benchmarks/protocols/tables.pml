/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Page tables installed by faults, taken away by a retraction (MADV_COLLAPSE) and by a zap (MADV_DONTNEED), read
 * locklessly, and freed by RCU: the protocol of tables.py, one statement an operation.  Threads are given to spin -a
 * by -DF= (faults) -DR= (retractions) -DZ= (zaps) -DG= (lockless readers).
 *
 * -DMERGED: what is done under a lock is one step, as whoever writes it may find by hand.
 * -DNO_RECHECK: a fault does not look at the pmd again when it has the lock.
 */

#define DETACHERS	(R + Z)
#define THREADS		(F + R + Z + G)
#define NTABLES		(2 + F * DETACHERS)	/* 0 is none, 1 is there from the start, the others are the faults' own */
#define OWN		(2 + _pid * DETACHERS)	/* a fault's first one; faults have the first numbers */

#define FREE		0
#define PRIVATE		1
#define ATTACHED	2
#define DETACHED	3
#define PUBLISHED	4	/* what is in it is seen before what points to it */

#ifdef MERGED
#define SECTION		atomic
#else
#define SECTION
#endif

byte pmd = 1;			/* the table that the entry points to */
byte pml;			/* who holds the lock of the entry, + 1 */
byte ptl[NTABLES];		/* the same of each table */
bit pte[2 * NTABLES];
byte life[NTABLES] = { FREE, ATTACHED, FREE };	/* the last value is that of the rest */
byte nr_ptes = 1;
bit rcu[THREADS];		/* in a read-side critical section */
byte pending[DETACHERS];	/* tables to be freed, and which readers that waits for */
byte waits[DETACHERS];
byte ended;

inline spin_lock(lock)
{
	d_step { lock == 0 -> lock = _pid + 1 }
}

inline spin_lock_table(t)
{
	d_step { ptl[t] == 0 -> assert(life[t] != FREE); ptl[t] = _pid + 1 }
}

inline release(lock)
{
	assert(lock == _pid + 1);
	lock = 0
}

inline end_of_thread()
{
	ended++;
	assert(ended < THREADS || nr_ptes == (pmd != 0))
}

inline rcu_read_lock()
{
	rcu[_pid] = 1
}

inline rcu_end()
{
	rcu[_pid] = 0;
	i = 0;
	do
	:: i < DETACHERS -> waits[i] = waits[i] & ~(1 << _pid); i++
	:: else -> break
	od;
	i = 0
}

inline call_rcu(t)
{
	i = 0;
	do
	:: pending[i] -> i++
	:: else -> break
	od;
	pending[i] = t;
	j = 0;
	do
	:: j < THREADS -> waits[i] = waits[i] | (rcu[j] << j); j++
	:: else -> break
	od;
	i = 0;
	j = 0
}

/* An entry under its lock: a table that was detached is only ever emptied. */
inline set_pte(t, n, value)
{
	d_step {
		assert(ptl[t] == _pid + 1 && life[t] != FREE && !(value && life[t] == DETACHED));
		pte[2 * t + n] = value
	}
}

inline clear_pte(t, n)
{
	if
	:: d_step { pte[2 * t + n] == 0 -> assert(life[t] != FREE) }
	:: d_step { pte[2 * t + n] != 0 -> assert(life[t] != FREE) } -> set_pte(t, n, 0)
	fi
}

inline detach(t)
{
	d_step {
		assert(pml == _pid + 1 && life[t] == ATTACHED);
		pmd = 0;
		life[t] = DETACHED
	}
}

#if F > 0
active [F] proctype fault()
{
	byte t, i;
again:
	rcu_read_lock();
	if
	:: d_step { pmd != 0 -> t = pmd }
		SECTION {
			spin_lock_table(t);
#ifndef NO_RECHECK
			if
			:: d_step { pmd == t -> skip }
			:: d_step { pmd != t -> skip }
				d_step { release(ptl[t]); t = 0 }
				d_step { rcu_end() }
				goto again
			fi;
#endif
			set_pte(t, _pid % 2, 1);
			d_step { release(ptl[t]); t = 0 }
			d_step { rcu_end(); end_of_thread() }
		}
	:: d_step { pmd == 0 -> skip }
		d_step { rcu_end() }
		d_step {
			t = OWN;
			do
			:: life[t] != FREE -> t++
			:: else -> break
			od;
			assert(t < OWN + DETACHERS);
			life[t] = PRIVATE
		}
		SECTION {
			spin_lock(pml);
			if
			:: d_step { pmd == 0 -> skip }
				nr_ptes++;
				life[t] = PUBLISHED;
				d_step { assert(pml == _pid + 1 && life[t] == PUBLISHED); life[t] = ATTACHED; pmd = t }
				d_step { release(pml); t = 0 }
			:: d_step { pmd != 0 -> skip }
				d_step { release(pml) }
				d_step { life[t] = FREE; t = 0 }
			fi
		}
		goto again
	fi;
end:
	false
}
#endif

#if R > 0
active [R] proctype retract()
{
	byte t, i, j;
	SECTION {
		spin_lock(pml);
		if
		:: d_step { pmd == 0 -> skip }
			d_step { release(pml); end_of_thread() }
			goto end
		:: d_step { pmd != 0 -> t = pmd }
			spin_lock_table(t);
			clear_pte(t, 0);
			clear_pte(t, 1);
			detach(t);
			d_step { release(ptl[t]) }
			d_step { release(pml) }
		fi;
		nr_ptes--
	}
	d_step { call_rcu(t); t = 0; end_of_thread() }
end:
	false
}
#endif

#if Z > 0
active [Z] proctype zap()
{
	byte t, i, j;
	rcu_read_lock();
	if
	:: d_step { pmd == 0 -> skip } -> goto nothing
	:: d_step { pmd != 0 -> t = pmd }
	fi;
	SECTION {
		spin_lock_table(t);
		if
		:: d_step { pmd == t -> skip }
		:: d_step { pmd != t -> skip } -> d_step { release(ptl[t]); t = 0 } goto nothing
		fi;
		clear_pte(t, 0);
		clear_pte(t, 1);
		d_step { release(ptl[t]); t = 0 }
		d_step { rcu_end() }
	}
	SECTION {
		spin_lock(pml);
		if
		:: d_step { pmd == 0 -> skip } -> d_step { release(pml); end_of_thread() } goto end
		:: d_step { pmd != 0 -> t = pmd }
		fi;
		spin_lock_table(t);
		if
		:: d_step { pte[2 * t] == 0 -> skip }
			if
			:: d_step { pte[2 * t + 1] == 0 -> skip }
				detach(t);
				d_step { release(ptl[t]) }
				d_step { release(pml) }
				goto free
			:: d_step { pte[2 * t + 1] != 0 -> skip }
			fi
		:: d_step { pte[2 * t] != 0 -> skip }
		fi;
		d_step { release(ptl[t]) }
		d_step { release(pml); t = 0; end_of_thread() }
	}
	goto end;
free:
	nr_ptes--;
	d_step { call_rcu(t); t = 0; end_of_thread() }
	goto end;
nothing:
	atomic { rcu_end(); end_of_thread() }
end:
	false
}
#endif

#if G > 0
active [G] proctype reader()
{
	byte t, i;
	rcu_read_lock();
	if
	:: d_step { pmd == 0 -> skip }
	:: d_step { pmd != 0 -> t = pmd }
		d_step { assert(life[t] != FREE); t = 0 }
	fi;
	d_step { rcu_end(); end_of_thread() }
end:
	false
}
#endif

#if DETACHERS > 0
active [DETACHERS] proctype callback()
{
	byte t;
end:
	do
	:: d_step {
		pending[_pid - THREADS] && waits[_pid - THREADS] == 0 ->
		t = pending[_pid - THREADS];
		assert(life[t] == DETACHED && ptl[t] == 0 && pte[2 * t] == 0 && pte[2 * t + 1] == 0);
		life[t] = FREE;
		pending[_pid - THREADS] = 0;
		t = 0
	   }
	od
}
#endif
