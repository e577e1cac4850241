-- Tasks: what each is, and where.
--
-- `tasks` is one hash, so that a step reads and writes all it needs in one command each. Its fields: `m`, the numbers of the
-- scheduler; `<id>`, 16 digits, the state of a task, and after it `d` its text, `f` what it was to come after, `w` what it
-- waits for, `a` what it has waited for while it was blocked, `h` the attempts that failed, `e` how its claims ended, `b` what
-- blocked it, until somebody has it again, `o` what came of it, `k` its key; `key:<key>`; `class:<n>`, `requires:<requirements>`; `kind:<n>`, `offers:<offers>`;
-- `session:<n>`, `name:<name>`, `request:<n>:<place>`.

local WAITING, DELAYED, READY, CLAIMED, BLOCKED, ON_HOLD, DONE, FAILED, CANCELLED, RESUMABLE = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9
local STATES = { [0] = 'waiting', 'delayed', 'ready', 'claimed', 'blocked', 'on_hold', 'done', 'failed', 'cancelled', 'ready' }

-- Flags of a task: somebody has had it since it was assigned; it was redriven; which of its other fields there are; whether
-- somebody wants to know what becomes of it; whether its session waits for it in particular.
local FLAG = {
  had = 1, redriven = 2, after = 4, waits = 8, lends = 16, answers = 32, history = 64, ends = 128, blocker = 256,
  outcome = 512, keyed = 1024, watched = 2048, awaited = 4096,
}

-- What never changes: priority, attempts, lease, time-out, when it was submitted, start, deadline, depth, path, parent, bytes of
-- its text; kind and trace. Then state, flags, class, since when its key counts, key, failures, children, the incarnation and the token of who has
-- it or has blocked it, the token of the claim that this one resumes, since when, until when; the last claim that ended, how
-- and until when; the name of who has it, and in whose own queue it is.
local TERMS = '>BI4I7I7I7I7I7I4I4I7I4I2I2'
local TERMS_BYTES = 63
local PLACE = '>BI2I4I7I7I4I4I7I7I7I7I7I7BI7I2I2'

local ON_FAILURE = { fail = 0, hold = 1, run = 2 }
local EDGE = '>I7B'
local EDGE_BYTES = 8

-- How a claim ended: by its holder up to here.
local END = {
  completed = 1, retrying = 2, given_up = 3, released = 4, refused = 5, blocked = 6, expired = 7, superseded = 8,
  cancelled = 9, overdue = 10, outdone = 11,
}
local LAST_BY_HOLDER = 6
local ENDED_AS = { 'completed', 'retrying', 'failed', 'released', 'refused', 'blocked' }

-- How many ended claims of a task are remembered.
local MOST_ENDS = 8
-- How much of what is due a step does at most, and how many other tasks it changes because of what it did.
local MOST_DUE, MOST_UNITS = 250, 250
-- How long a finished task stays at least, so that whoever waits for it is told.
local TOLD = 1000000
-- What a task occupies besides its texts, about.
local TASK_BYTES = 400

-- version, tasks by state, sessions, classes, waiting claims, chores, bytes of finished tasks, when the oldest of them
-- finished (or 0), when the next timer is armed, tasks in own queues, the last class and kind
local NUMBERS = '>I7I7I7I7I7I7I7I7I7I7I4I4I4I4I7I7I7I7I7I7'

-- What this step knows and changes. `T` are the numbers of the scheduler, nothing before they are read.
local T, loaded, seen, fetched, pending, changed, timers, soonest, nudged, stealable, units, due_left
-- Numbers that were read before, by prefix.
local numbers_of = {}

local function has(rec, flag)
  return bit.band(rec.flags, flag) ~= 0
end

local function with(rec, flag)
  rec.flags = bit.bor(rec.flags, flag)
end

local function without(rec, flag)
  rec.flags = bit.band(rec.flags, bit.bnot(flag))
end

local function id16(id)
  return string.format('%016.0f', id)
end

-- Reads fields of the hash ahead.
local function fetch(fields)
  local wanted = {}
  for _, field in ipairs(fields) do
    if fetched[field] == nil and pending[field] == nil then
      wanted[#wanted + 1] = field
    end
  end
  for from = 1, #wanted, 1000 do
    local values = call('HMGET', P .. 'tasks', unpack(wanted, from, at_most(from + 999, #wanted)))
    for nth, value in ipairs(values) do
      fetched[wanted[from + nth - 1]] = value
    end
  end
end

local function read(field)
  local value = pending[field]
  if value == nil then
    value = fetched[field]
    if value == nil then
      value = call('HGET', P .. 'tasks', field)
      fetched[field] = value
    end
  end
  return value
end

local function write(field, value)
  pending[field] = value
end

local function drop(field)
  pending[field] = false
end

-- Begins the part of a step that is about tasks, and reads these fields along with the numbers.
local function open(fields)
  if T then
    return fields and fetch(fields)
  end
  loaded, seen, fetched, pending, changed, timers, soonest = {}, {}, {}, {}, {}, {}, NEVER
  nudged, stealable, units, due_left = {}, false, MOST_UNITS, MOST_DUE
  fields = fields or {}
  local values = call('HMGET', P .. 'tasks', 'm', unpack(fields, 1, at_most(#fields, 1000)))
  for nth = 2, #values do
    fetched[fields[nth - 1]] = values[nth]
  end
  local packed = values[1]
  T = numbers_of[P]
  if not (T and T.packed == packed) then
    T = { packed = packed }
    numbers_of[P] = T
    if packed then
      T.version, T[0], T[1], T[2], T[3], T[4], T[5], T[6], T[7], T[8], T.sessions, T.classes, T.waiting, T.chores, T.bytes,
        T.oldest, T.armed, T.own, T.last_class, T.last_kind = struct.unpack(NUMBERS, packed)
    else
      T.version, T[0], T[1], T[2], T[3], T[4], T[5], T[6], T[7], T[8] = 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
      T.sessions, T.classes, T.waiting, T.chores, T.bytes, T.oldest, T.armed, T.own, T.last_class, T.last_kind =
        0, 0, 0, 0, 0, 0, NEVER, 0, 0, 0
    end
  end
end

-- Something is due at `at`, whether or not anybody calls.
local function note_due(at)
  soonest = at_most(soonest, at)
end

-- Timers, by what is due: the end of a lease, a deadline, a start, the end of the time to resume, an offer after a refusal.
-- Of what is due at the same, the smallest is done first.
local DUE = { lease = 'a', deadline = 'b', start = 'c', window = 'd', offer = 'e' }

local function arm_timer(item, at)
  timers[item] = at
  note_due(at)
end

local function disarm_timer(item)
  timers[item] = false
end

local function write_timers()
  local adds, removes = {}, {}
  for item, at in pairs(timers) do
    if at then
      adds[#adds + 1], adds[#adds + 2] = at, item
    else
      removes[#removes + 1] = item
    end
  end
  for from = 1, #removes, 1000 do
    call('ZREM', P .. 'timers', unpack(removes, from, at_most(from + 999, #removes)))
  end
  for from = 1, #adds, 1000 do
    call('ZADD', P .. 'timers', unpack(adds, from, at_most(from + 999, #adds)))
  end
  timers = {}
end

local function unpack_task(id, packed)
  local kind, trace = struct.unpack('>I2I2', packed, TERMS_BYTES - 3)
  local begins = TERMS_BYTES + kind + trace
  local rec = { id = id, name16 = id16(id), terms = string.sub(packed, 1, begins) }
  local holder, assignee, place
  rec.state, rec.flags, rec.class, rec.since, rec.key, rec.failures, rec.children, rec.number, rec.token, rec.resumes,
    rec.started, rec.till, rec.end_token, rec.end_code, rec.end_at, holder, assignee, place =
    struct.unpack(PLACE, packed, begins + 1)
  rec.holder = string.sub(packed, place, place + holder - 1)
  rec.assignee = string.sub(packed, place + holder, place + holder + assignee - 1)
  return rec
end

local function pack_task(rec)
  return rec.terms .. struct.pack(PLACE, rec.state, rec.flags, rec.class, rec.since, rec.key, rec.failures, rec.children,
    rec.number, rec.token, rec.resumes, rec.started, rec.till, rec.end_token, rec.end_code, rec.end_at, #rec.holder,
    #rec.assignee) .. rec.holder .. rec.assignee
end

-- What never changes of a task, by name.
local function terms_of(rec)
  if not rec.lease then
    local kind, trace
    rec.priority, rec.attempts, rec.lease, rec.timeout, rec.submitted, rec.start, rec.deadline, rec.depth, rec.path,
      rec.parent, rec.bytes, kind, trace = struct.unpack(TERMS, rec.terms)
    rec.kind = string.sub(rec.terms, TERMS_BYTES + 1, TERMS_BYTES + kind)
    rec.trace = string.sub(rec.terms, TERMS_BYTES + kind + 1)
  end
  return rec
end

local function trace_of(rec)
  local trace = struct.unpack('>I2', rec.terms, TERMS_BYTES - 1)
  return trace > 0 and string.sub(rec.terms, -trace) or nil
end

local function find_task(id)
  local rec = loaded[id]
  if rec == nil then
    local packed = read(id16(id))
    rec = packed and unpack_task(id, packed) or false
    loaded[id] = rec
  end
  return rec
end

local function touch(rec)
  if not rec.touched then
    rec.touched = true
    changed[#changed + 1] = rec
  end
end

local function is_finished(rec)
  return rec.state >= DONE and rec.state <= CANCELLED
end

local function is_unfinished(id)
  local rec = find_task(id)
  return rec and not is_finished(rec)
end

-- The claim with this token, if it is the current one and its time is not over.
local function holds(rec, token)
  return rec.state == CLAIMED and rec.token == token and rec.till > now
end

local function stale(rec)
  return { 'stale', rec and rec.state == CLAIMED and rec.token or false }
end

-- A field of a task that not all have: a list of numbers.
local function numbers_in(rec, flag, suffix)
  local list = {}
  if has(rec, flag) then
    local packed = read(rec.name16 .. suffix)
    for place = 1, #packed, 7 do
      list[#list + 1] = struct.unpack('>I7', packed, place)
    end
  end
  return list
end

local function write_numbers(rec, flag, suffix, list)
  if #list == 0 then
    if has(rec, flag) then
      drop(rec.name16 .. suffix)
      without(rec, flag)
    end
    return
  end
  local parts = {}
  for nth, number_ in ipairs(list) do
    parts[nth] = struct.pack('>I7', number_)
  end
  write(rec.name16 .. suffix, table.concat(parts))
  with(rec, flag)
end

-- Edges: what a task waits for, as {task, what it does if that fails}.
local function unpack_edges(packed)
  local edges = {}
  for place = 1, #packed, EDGE_BYTES do
    local on, code = struct.unpack(EDGE, packed, place)
    edges[#edges + 1] = { on, code }
  end
  return edges
end

local function pack_edges(edges)
  local parts = {}
  for nth, edge in ipairs(edges) do
    parts[nth] = struct.pack(EDGE, edge[1], edge[2])
  end
  return table.concat(parts)
end

local function waits_of(rec)
  if not rec.waits then
    rec.waits = has(rec, FLAG.waits) and unpack_edges(read(rec.name16 .. 'w')) or {}
  end
  return rec.waits
end

local function write_waits(rec)
  touch(rec)
  if #rec.waits > 0 then
    rec.waits_changed = true
    with(rec, FLAG.waits)
  elseif has(rec, FLAG.waits) then
    rec.waits_changed = false
    drop(rec.name16 .. 'w')
    without(rec, FLAG.waits)
  end
end

local function after_of(rec)
  return has(rec, FLAG.after) and unpack_edges(read(rec.name16 .. 'f')) or {}
end

local function history_of(rec)
  return has(rec, FLAG.history) and cmsgpack.unpack(read(rec.name16 .. 'h')) or {}
end

-- An attempt that failed: who, token, when it began and ended, how (`failed`, `timed_out`, `lost`), why.
local function add_run(rec, ended, how, reason)
  local history = history_of(rec)
  history[#history + 1] = { rec.holder, rec.token, rec.started, ended, how, reason or false }
  write(rec.name16 .. 'h', cmsgpack.pack(history))
  with(rec, FLAG.history)
end

-- Ends of claims that do not fit the state: {token, how, until when, what else}, the oldest first.
local function ends_of(rec)
  return has(rec, FLAG.ends) and cmsgpack.unpack(read(rec.name16 .. 'e')) or {}
end

-- How a claim of a task ended, if that is remembered: how, until when, what else.
local function find_end(rec, token)
  for _, each in ipairs(ends_of(rec)) do
    if each[1] == token then
      return each[2], each[3], each[4]
    end
  end
  if token ~= 0 and rec.end_token == token then
    return rec.end_code, rec.end_at, false
  end
end

local function remember_end(rec, token, code, at, extra)
  touch(rec)
  local ends = (has(rec, FLAG.ends) or extra or rec.end_token ~= 0) and ends_of(rec) or nil
  if ends then
    local last = ends[#ends]
    if rec.end_token ~= 0 and not (last and last[1] == rec.end_token) then
      ends[#ends + 1] = { rec.end_token, rec.end_code, rec.end_at, false }
    end
    if extra then
      ends[#ends + 1] = { token, code, at, extra }
    end
    while #ends + (extra and 0 or 1) > MOST_ENDS do
      table.remove(ends, 1)
    end
    if #ends > 0 then
      write(rec.name16 .. 'e', cmsgpack.pack(ends))
      with(rec, FLAG.ends)
    end
  end
  rec.end_token, rec.end_code, rec.end_at = token, code, at
end

-- A claim is over, unless its holder has just ended it.
local function lose(rec, code, extra)
  if rec.state == CLAIMED and rec.end_token ~= rec.token then
    remember_end(rec, rec.token, code, 0, extra)
  end
end

-- Keeps an entry about a task. The parameters are JSON, names and values; names of sessions need no escaping.
local function note(operation, rec, params, severity, traced)
  local trace = traced and trace_of(rec)
  record('{"component":"task","operation":"' .. operation .. '","subject":"' .. int(rec.id) .. '","params":{' .. params ..
    '},"severity":"' .. (severity or 'INFO') .. '"' .. (trace and ',"trace":"' .. trace .. '"' or '') .. '}')
end

-- About how many bytes a finished task occupies.
local function weigh_task(rec)
  local bytes = TASK_BYTES + #rec.terms + terms_of(rec).bytes
  for flag, suffix in pairs({ [FLAG.outcome] = 'o', [FLAG.history] = 'h', [FLAG.ends] = 'e', [FLAG.answers] = 'a' }) do
    if has(rec, flag) then
      local value = pending[rec.name16 .. suffix]
      bytes = bytes + (value and #value or call('HSTRLEN', P .. 'tasks', rec.name16 .. suffix))
    end
  end
  return bytes
end

-- Whoever wants to know what becomes of a task looks again.
local function tell(rec)
  if has(rec, FLAG.watched) then
    without(rec, FLAG.watched)
    touch(rec)
    wake_tails('task ' .. int(rec.id))
  end
end

-- The calling process is told when something becomes of a task.
local function watch(rec)
  call('SADD', P .. 'tails:task ' .. int(rec.id), CHANNEL)
  if not has(rec, FLAG.watched) then
    with(rec, FLAG.watched)
    touch(rec)
  end
end
