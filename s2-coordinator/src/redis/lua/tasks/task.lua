-- Tasks: what each is, and where.

-- Tasks that were read before, by their names, with the bytes in which the server holds them. Few: who claims a task ends it
-- soon, and memory that is held is marked again and again.
local tasks_of, task_count = {}, 0
-- What later parts do about tasks that wait for each other, and about a fleet that stands still.
local deadlock, progress = {}, {}
-- What the other parts use of it.
local pack_task, terms_of, find_named, find_task, digits, touch, is_finished, is_unfinished, holds, stale,
  answers_of, write_answers, pack_edges, waits_of, write_waits, after_of, history_of, add_run, find_end, remember_end,
  lose, note, weigh_task, tell, watch, wait_of

do

local TERMS_BYTES = 63
-- What changes: state, flags, class, since when its key counts, key, failures, children, the incarnation and the token of who has
-- it or has blocked it, the token of the claim that this one resumes, since when, until when, when progress was last
-- reported; the last claim that ended, how and until when; the name of who has it, and in whose own queue it is.
local PLACE = '>BI2I4I7I7I4I4I7I7I7I7I7I7I7BI7I2I2'
local EDGE = '>I7B'
local EDGE_BYTES = 8
-- How many ended claims of a task are remembered.
local MOST_ENDS = 8
-- What a task occupies besides its texts, about.
local TASK_BYTES = 400

local function unpack_task(name16, packed)
  local kind, trace = unpack_bytes('>I2I2', packed, TERMS_BYTES - 3)
  local begins = TERMS_BYTES + kind + trace
  local state, flags, class, since, key, failures, children, number_, token, resumes, started, till, progressed, end_token,
    end_code, end_at, holder, assignee, place = unpack_bytes(PLACE, packed, begins + 1)
  return {
    id = tonumber(name16), name16 = name16, terms = sub(packed, 1, begins), packed = packed, state = state, flags = flags,
    class = class, since = since, key = key, failures = failures, children = children, number = number_, token = token,
    resumes = resumes, started = started, till = till, progressed = progressed, end_token = end_token,
    end_code = end_code, end_at = end_at,
    holder = sub(packed, place, place + holder - 1),
    assignee = sub(packed, place + holder, place + holder + assignee - 1), touched = false, place = false, waits = false,
  }
end

function pack_task(rec)
  return rec.terms .. pack(PLACE, rec.state, rec.flags, rec.class, rec.since, rec.key, rec.failures, rec.children,
    rec.number, rec.token, rec.resumes, rec.started, rec.till, rec.progressed, rec.end_token, rec.end_code, rec.end_at,
    #rec.holder, #rec.assignee) .. rec.holder .. rec.assignee
end

local function keep_task(rec)
  task_count = task_count + 1
  if task_count > 300 then
    tasks_of, task_count = {}, 0
  end
  local known_tasks = tasks_of[P]
  if not known_tasks then
    known_tasks = {}
    tasks_of[P] = known_tasks
  end
  known_tasks[rec.name16] = rec
end

-- What never changes of a task, by name. Tasks of one batch have most of it in common.
local known_terms, terms_count = {}, 0

function terms_of(rec)
  local terms = known_terms[rec.terms]
  if not terms then
    terms = {}
    local kind, trace
    terms.priority, terms.attempts, terms.lease, terms.timeout, terms.submitted, terms.start, terms.deadline, terms.depth,
      terms.path, terms.parent, terms.bytes, kind, trace = unpack_bytes(TERMS, rec.terms)
    terms.kind = sub(rec.terms, TERMS_BYTES + 1, TERMS_BYTES + kind)
    terms.trace = trace > 0 and sub(rec.terms, -trace) or nil
    -- By which other tasks of the same key it is ordered.
    terms.behind = format('%010d', 4294967295 - terms.path)
    if terms_count >= 1000 then
      known_terms, terms_count = {}, 0
    end
    known_terms[rec.terms], terms_count = terms, terms_count + 1
  end
  return terms
end

function find_named(name16)
  local rec = loaded[name16]
  if rec == nil then
    local packed = read(name16)
    rec = packed and tasks_of[P] and tasks_of[P][name16]
    if packed and not (rec and rec.packed == packed) then
      rec = unpack_task(name16, packed)
      keep_task(rec)
    end
    rec = rec or false
    if rec then
      -- That is not in these bytes, and somebody else may have changed it.
      rec.waits, rec.waits_changed = false, nil
    end
    loaded[name16] = rec
  end
  return rec
end

function find_task(id)
  return find_named(id16(id))
end

-- The number of a task as text.
function digits(rec)
  return string.byte(rec.name16) ~= 48 and rec.name16 or int(rec.id)
end

function touch(rec)
  if not rec.touched then
    rec.touched = true
    changed[#changed + 1] = rec
  end
end

function is_finished(rec)
  return rec.state >= DONE and rec.state <= CANCELLED
end

function is_unfinished(id)
  local rec = find_task(id)
  return rec and not is_finished(rec)
end

-- The claim with this token, if it is the current one and its time is not over.
function holds(rec, token)
  return rec.state == CLAIMED and rec.token == token and rec.till > now
end

function stale(rec)
  return { 'stale', rec and rec.state == CLAIMED and rec.token or false }
end

-- What a task has waited for while it was blocked.
function answers_of(rec)
  local list, packed = {}, has(rec, FLAG.answers) and read(rec.name16 .. 'a') or ''
  for place = 1, #packed, 7 do
    list[#list + 1] = unpack_bytes('>I7', packed, place)
  end
  return list
end

function write_answers(rec, list)
  if #list == 0 then
    if has(rec, FLAG.answers) then
      drop(rec.name16 .. 'a')
      without(rec, FLAG.answers)
    end
    return
  end
  local parts = {}
  for nth, id in ipairs(list) do
    parts[nth] = pack('>I7', id)
  end
  write(rec.name16 .. 'a', table.concat(parts))
  with(rec, FLAG.answers)
end

-- Edges: what a task waits for, as {task, what it does if that fails}.
local function unpack_edges(packed)
  local edges = {}
  for place = 1, #packed, EDGE_BYTES do
    local on, code = unpack_bytes(EDGE, packed, place)
    edges[#edges + 1] = { on, code }
  end
  return edges
end

function pack_edges(edges)
  local parts = {}
  for nth, edge in ipairs(edges) do
    parts[nth] = pack(EDGE, edge[1], edge[2])
  end
  return table.concat(parts)
end

function waits_of(rec)
  if not rec.waits then
    rec.waits = has(rec, FLAG.waits) and unpack_edges(read(rec.name16 .. 'w')) or {}
  end
  return rec.waits
end

function write_waits(rec)
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

function after_of(rec)
  return has(rec, FLAG.after) and unpack_edges(read(rec.name16 .. 'f')) or {}
end

function history_of(rec)
  return has(rec, FLAG.history) and cmsgpack.unpack(read(rec.name16 .. 'h')) or {}
end

-- An attempt that failed: who, token, when it began and ended, how (`failed`, `timed_out`, `lost`), why.
function add_run(rec, ended, how, reason)
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
function find_end(rec, token)
  for _, each in ipairs(ends_of(rec)) do
    if each[1] == token then
      return each[2], each[3], each[4]
    end
  end
  if token ~= 0 and rec.end_token == token then
    return rec.end_code, rec.end_at, false
  end
end

function remember_end(rec, token, code, at, extra)
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
  if code <= LAST_BY_HOLDER then
    progress.moved()
  end
end

-- What somebody has blocked a task by, while it waits for that: why, what one must be capable of to help, since when, whether one
-- of those that it waits for is enough, whether it was released from the same before, and a ring that only a person may open.
function wait_of(rec)
  if not has(rec, FLAG.blocker) or rec.state ~= BLOCKED and rec.state ~= WAITING then
    return nil
  end
  local said = cmsgpack.unpack(read(rec.name16 .. 'b'))
  return {
    reason = said[1], requires = said[2], since = said[3], any = said[4] == 1,
    -- Who takes it up instead of a session that is gone may find another way.
    again = said[5] == 1 and rec.state == BLOCKED, cycle = said[6],
  }
end

-- A claim is over, unless its holder has just ended it.
function lose(rec, code, extra)
  if rec.state == CLAIMED and rec.end_token ~= rec.token then
    remember_end(rec, rec.token, code, 0, extra)
  end
end

-- Keeps an entry about a task. The parameters are JSON, names and values; names of sessions need no escaping.
function note(operation, rec, params, severity)
  local trace = terms_of(rec).trace
  record('{"component":"task","operation":"' .. operation .. '","subject":"' .. digits(rec) .. '","params":{' .. params ..
    '},"severity":"' .. (severity or 'INFO') .. '"' .. (trace and ',"trace":"' .. trace .. '"' or '') .. '}')
end

local WEIGHED = { FLAG.outcome, 'o', FLAG.history, 'h', FLAG.ends, 'e', FLAG.answers, 'a' }
local ANY_WEIGHED = FLAG.outcome + FLAG.history + FLAG.ends + FLAG.answers

-- About how many bytes a finished task occupies.
function weigh_task(rec)
  local bytes = TASK_BYTES + #rec.terms + terms_of(rec).bytes
  if not has(rec, ANY_WEIGHED) then
    return bytes
  end
  for nth = 1, #WEIGHED, 2 do
    local flag, suffix = WEIGHED[nth], WEIGHED[nth + 1]
    if has(rec, flag) then
      local value = pending[rec.name16 .. suffix]
      bytes = bytes + (value and #value or call('HSTRLEN', P .. 'tasks', rec.name16 .. suffix))
    end
  end
  return bytes
end

-- Whoever wants to know what becomes of a task looks again.
function tell(rec)
  if has(rec, FLAG.watched) then
    without(rec, FLAG.watched)
    touch(rec)
    wake_tails('task ' .. digits(rec))
  end
end

-- The calling process is told when something becomes of a task.
function watch(rec)
  call('SADD', P .. 'tails:task ' .. digits(rec), CHANNEL)
  if not has(rec, FLAG.watched) then
    with(rec, FLAG.watched)
    touch(rec)
  end
end

end
