-- What time brings, and who comes and goes.

-- What the other parts use of it.
local session_note, forget_session, part, leave_fleet, follow, task_step

do

-- How long a finished task stays at least, so that whoever waits for it is told.
local TOLD = 1000000

-- An attempt ended without its session saying so.
local function count_failure(rec, how, at)
  rec.failures = rec.failures + 1
  add_run(rec, at, how)
  touch(rec)
  if rec.failures >= terms_of(rec).attempts then
    return fail(rec, 'attempts')
  end
  make_ready(rec, at)
  tell(rec)
end

-- A lease was not renewed in time.
local function expire_lease(rec, at)
  local stalled = at == rec.progressed + C.progress
  note(stalled and 'stalled' or 'expired', rec, '"session":"' .. rec.holder .. '","token":' .. int(rec.token), 'MEDIUM')
  lose(rec, stalled and END.stalled or END.expired)
  count_failure(rec, not find_session(rec.number) and 'lost' or stalled and 'stalled' or 'timed_out', at)
end

local function fire(item, at)
  local what, rec = sub(item, 1, 1), find_named(sub(item, 2, 17))
  if what == DUE.offer then
    local session = find_session(tonumber(sub(item, 18)))
    if session then
      refused_of[session.n] = nil
      session.refused = session.refused - call('ZREM', refused_key(session), sub(item, 2, 17))
      save_session(session)
      nudge(session.n)
    end
  elseif not rec then
    return
  elseif what == DUE.lease and rec.state == CLAIMED and rec.till <= at then
    expire_lease(rec, at)
  elseif what == DUE.deadline and not is_finished(rec) then
    fail(rec, 'overdue')
  elseif what == DUE.start and rec.state == DELAYED then
    make_ready(rec, at)
  elseif what == DUE.window and rec.state == RESUMABLE then
    open_to_all(rec)
  elseif what == DUE.wait and wait_of(rec) and rec.till <= at then
    deadlock.preempt(rec, {})
  end
end

-- Forgets finished tasks that are too old, the oldest first; if there are too many, an eighth of what is kept.
local function forget()
  if has_chores() or T.oldest == 0 then
    return
  end
  local room = T.bytes > C.finished_bytes and C.finished_bytes - math.floor(C.finished_bytes / 8) or C.finished_bytes
  local forgotten, through = 0, 0
  while due_left > 0 do
    local first = call('LINDEX', P .. 'finished', 0)
    if not first then
      T.oldest = 0
      break
    end
    local at, id = unpack_bytes('>I7I7', first)
    local rec = find_task(id)
    local current = rec and is_finished(rec) and rec.till == at
    local too_old = C.finished_age and now - at >= C.finished_age
    if current and (now - at < TOLD or not too_old and T.bytes <= room) then
      T.oldest = at
      break
    end
    due_left = due_left - 1
    call('LPOP', P .. 'finished')
    if current then
      T.bytes = at_least(T.bytes - weigh_task(rec), 0)
      T[rec.state] = T[rec.state] - 1
      call('ZREM', P .. 'ids', rec.name16)
      if has(rec, FLAG.keyed) then
        drop('key:' .. read(rec.name16 .. 'k'))
      end
      for _, suffix in ipairs({ '', 'd', 'f', 'w', 'a', 'h', 'e', 'b', 'p', 'o', 'k' }) do
        drop(rec.name16 .. suffix)
      end
      tell(rec)
      loaded[rec.name16], rec.forgotten = false, true
      tasks_of[P][rec.name16] = nil
      forgotten, through = forgotten + 1, id
    end
  end
  if forgotten > 0 then
    record('{"component":"task","operation":"forgotten","subject":"' .. int(through) .. '","params":{"tasks":' ..
      int(forgotten) .. '},"severity":"INFO"}')
  end
end

local function write_ended()
  if T.ended then
    for from = 1, #T.ended, 1000 do
      call('RPUSH', P .. 'finished', unpack(T.ended, from, at_most(from + 999, #T.ended)))
    end
    T.ended = nil
  end
end

-- When the oldest finished task is to be forgotten.
local function forget_at()
  local age = C.finished_age and at_least(C.finished_age, TOLD)
  if T.bytes > C.finished_bytes then
    age = TOLD
  end
  return T.oldest > 0 and age and T.oldest + age or NEVER
end

-- When something is due next.
local function next_due()
  write_timers()
  if has_chores() or due_left <= 0 then
    return now
  end
  local first = call('ZRANGE', P .. 'timers', 0, 0, 'WITHSCORES')
  return at_most(at_most(tonumber(first[2] or NEVER), forget_at()), progress.flat_at())
end

-- Does what is due by now, up to a point. Answers when something is due next.
local function sweep_tasks()
  open()
  begin_queues()
  T.armed = NEVER
  repeat
    write_timers()
    local items = due_left > 0 and
      call('ZRANGE', P .. 'timers', '-inf', int(now), 'BYSCORE', 'LIMIT', 0, due_left, 'WITHSCORES') or {}
    local fields = {}
    for nth = 1, #items, 2 do
      fields[#fields + 1] = sub(items[nth], 2, 17)
    end
    fetch(fields)
    for nth = 1, #items, 2 do
      -- Unless what came before it has changed that.
      local item, at = items[nth], tonumber(items[nth + 1])
      if timers[item] == nil then
        timers[item] = false
        due_left = due_left - 1
        fire(item, at)
      end
    end
    work()
  until #items == 0 or due_left <= 0
  write_ended()
  progress.flatline()
  forget()
  local due = next_due()
  if has_chores() or due_left <= 0 then
    -- The next step does what is left, and this one goes on.
    note_due(due)
    return nil
  end
  T.armed = due
  return due < NEVER and due or nil
end

function session_note(operation, name, params, severity)
  record('{"component":"session","operation":"' .. operation .. '","subject":"' .. name .. '","params":{' .. params ..
    '},"severity":"' .. (severity or 'INFO') .. '"}')
end

function forget_session(session)
  local n = int(session.n)
  drop('session:' .. n)
  drop('name:' .. session.name)
  seen[session.n] = false
  session.gone = true
  if sessions_of[P] then
    sessions_of[P][session.n] = nil
  end
  T.sessions = T.sessions - 1
  for place = 0, session.places - 1 do
    drop('request:' .. n .. ':' .. place)
  end
  call('ZREM', P .. 'sessions', session.name)
  call('SREM', P .. 'ps:' .. session.process, n)
end

-- What a session leaves behind. If another takes its place, its claims end as those of a crashed one do.
function part(session, newer)
  local n = int(session.n)
  for place = #session.waits, 1, -1 do
    local claim = session.waits[place]
    leave_line(Q.kinds[session.kind], claim[1], session.n)
    push(claim[5], { claim[4], 1 })
  end
  session.waits = {}
  leave_kind(session.kind)
  if session.refused > 0 then
    for _, task in ipairs(call('ZRANGE', refused_key(session), 0, -1)) do
      disarm_timer(DUE.offer .. task .. id16(session.n))
    end
    call('DEL', refused_key(session))
  end
  if newer then
    session_note('superseded', session.name, '"incarnation":' .. n .. ',"by":' .. int(newer), 'MEDIUM')
    table.sort(session.held)
    for _, id in ipairs(session.held) do
      local rec = find_task(id)
      if rec and rec.state == CLAIMED and rec.number == session.n then
        lose(rec, END.superseded)
        count_failure(rec, 'lost', now)
      end
    end
  end
  if session.blocked > 0 then
    for _, task in ipairs(call('ZRANGE', P .. 'blocked:' .. n, 0, -1)) do
      add_chore('desert ' .. int(tonumber(task)))
    end
    call('DEL', P .. 'blocked:' .. n)
  end
  if session.resumable > 0 then
    for _, member in ipairs(call('ZRANGE', P .. 'resumable:' .. n, 0, -1)) do
      add_chore('desert ' .. int(tonumber(sub(member, 11))))
    end
    call('DEL', P .. 'resumable:' .. n)
  end
end

function leave_fleet(session, lost)
  forget_session(session)
  session_note(lost and 'lost' or 'left', session.name, '"incarnation":' .. int(session.n), lost and 'MEDIUM' or nil)
  part(session)
  add_chore('sift ' .. session.name)
end

-- Sessions of a process of which nothing was heard for too long leave. Answers whether there may be more.
local function desert_process(process)
  local sessions = call('SRANDMEMBER', P .. 'ps:' .. process, 100)
  if #sessions == 0 then
    return false
  end
  open()
  begin_queues()
  for _, n in ipairs(sessions) do
    local session = find_session(tonumber(n))
    if session then
      leave_fleet(session, true)
    end
    call('SREM', P .. 'ps:' .. process, n)
    budget = budget - 1
  end
  return true
end

-- Does what follows from a verb, and hands out what has become ready to who waits.
function follow()
  work()
  deadlock.mark()
  -- Claims count from the time of this step, also while it catches up.
  local caught_up = now
  now = target
  hand_out()
  now = caught_up
end

-- Writes what this step has changed of tasks.
local function save_tasks()
  if not T then
    return
  end
  if Q then
    follow()
  end
  write_timers()
  for class in pairs(touched_classes) do
    write_class(class)
    if class.counts then
      class.counts = false
      write(class.field, pack('>I7', class.tasks) .. class.text)
    end
  end
  write_ended()
  for _, session in ipairs(changed_sessions) do
    session.touched = nil
    if not session.gone then
      write('session:' .. int(session.n), pack_session(session))
    end
  end
  changed_sessions = {}
  for _, rec in ipairs(changed) do
    if not rec.forgotten then
      if rec.waits_changed and #rec.waits > 0 then
        write(rec.name16 .. 'w', pack_edges(rec.waits))
      end
      rec.packed, rec.touched = pack_task(rec), false
      write(rec.name16, rec.packed)
    end
    -- What else there is of it is read anew when it is needed.
    rec.waits, rec.waits_changed, rec.place = false, nil, false
  end
  if has_chores() then
    note_due(now)
  end
  progress.watch()
  save_chores()
  if T.chores == 0 then
    note_due(forget_at())
  end
  if soonest < T.armed then
    T.armed = soonest
    arm('tasks', soonest)
  end
  local packed = pack(NUMBERS, T.version, T[0], T[1], T[2], T[3], T[4], T[5], T[6], T[7], T[8], T.sessions, T.classes,
    T.waiting, T.chores, T.bytes, T.oldest, T.armed, T.own, T.last_class, T.last_kind, T.progress, T.flat)
  T.moved = nil
  if packed ~= T.packed then
    T.packed = packed
    write('m', packed)
  end
  local fields, gone = {}, {}
  for field, value in pairs(pending) do
    if value then
      fields[#fields + 1], fields[#fields + 2] = field, value
    else
      gone[#gone + 1] = field
    end
  end
  for from = 1, #gone, 1000 do
    call('HDEL', P .. 'tasks', unpack(gone, from, at_most(from + 999, #gone)))
  end
  for from = 1, #fields, 1000 do
    call('HSET', P .. 'tasks', unpack(fields, from, at_most(from + 999, #fields)))
  end
  T = nil
end

tasks.begin = function()
  T, Q = nil, nil
  deadlock.begin()
end

tasks.forget = function()
  numbers_of, queues_of, fleet_count, sessions_of, session_count, tasks_of, task_count = {}, {}, 0, {}, 0, {}, 0
  new_chores, next_chore, urgent, changed_sessions = {}, 1, {}, {}
end

tasks.sweep, tasks.leave, tasks.save = sweep_tasks, desert_process, save_tasks

-- Makes a verb about tasks one step: what follows is done up to a point, and handed out to who waits. An answer that
-- is no error says last when something is due next, and whether tasks may wait for themselves.
function task_step(verb)
  return step(function()
    local answer = verb()
    save_tasks()
    for _, each in ipairs(answer.all or { answer }) do
      if each[1] == 'ok' or each[1] == 'waits' then
        each[3], each[4] = M.due, deadlock.word()
      end
    end
    return answer
  end)
end

end
