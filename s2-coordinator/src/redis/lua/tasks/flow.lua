-- Where a task is, and what follows for other tasks when that changes: edges that are settled, keys that are inherited, tasks
-- that are over.
--
-- `lends:<task>` are the tasks that wait for one, by the key that each lends it. What follows from a change for other tasks,
-- however many, is a *chore*: a step does so many, and those after it the rest. `chores` lists what is left: `release <task>`
-- tells what depends on a finished task; `rekey <task>` gives one the smallest key of what waits for it, `reset <task>` its own;
-- `desert <task>` gives what a session that is gone had blocked to others; `sift <name>` gives what is in the own queue of a
-- session to everybody, as far as it is not there or cannot do it.

local new_chores, next_chore, urgent = {}, 1, {}
-- What the other parts use of it.
local add_chore, order_key, key_of, unindex, index, move, make_ready, open_to_all, add_edge, drop_edges, pass_on,
  put_on_hold, finish, fail, offer_resumption, proceed, desert, work, has_chores, save_chores

do

function add_chore(chore)
  new_chores[#new_chores + 1] = chore
end

local STRICT_SINCE, STRICT_STEP = 1577836800000000, 2251799813685248

-- The key of a task that became ready at `since`.
function order_key(since, priority)
  local step = C.priority_step
  if step > 4503599627370496 then
    return priority * STRICT_STEP + at_most(at_least(since - STRICT_SINCE, 0), STRICT_STEP - 1)
  end
  return at_most(since + step * priority, NEVER)
end

local function lends_key(id)
  return P .. 'lends:' .. int(id)
end

-- The key of a task: its own, or that of what waits for it, if that is smaller.
function key_of(rec)
  local own = order_key(rec.since, terms_of(rec).priority)
  local first = has(rec, FLAG.lends) and call('ZRANGE', lends_key(rec.id), 0, 0, 'WITHSCORES')
  return first and first[2] and at_most(own, tonumber(first[2])) or own
end

-- Puts a task that is ready into its queue.
local function enqueue(rec)
  if rec.assignee ~= '' then
    local session = named(rec.assignee)
    -- A session that is there and cannot do it, or that had it and is gone, would keep it for ever.
    local keeps = not has(rec, FLAG.had)
    if session then
      keeps = may(Q.kinds[session.kind], rec.class)
    end
    if keeps then
      local length = own_insert(rec.assignee, rec.class, place_of(rec), terms_of(rec).priority)
      if session then
        nudge(session.n)
      end
      stealable = stealable or length > C.steal_above
      return
    end
    rec.assignee = ''
  end
  insert(rec.class, place_of(rec))
end

function unindex(rec)
  local state = rec.state
  T[state == RESUMABLE and READY or state] = T[state == RESUMABLE and READY or state] - 1
  if state == READY then
    if rec.assignee ~= '' then
      own_remove(rec.assignee, rec.class, place_of(rec))
    else
      remove_ready(rec.class, rec.place or place_of(rec))
      rec.place = false
    end
  elseif state == DELAYED then
    disarm_timer(DUE.start .. rec.name16)
  elseif state == CLAIMED then
    disarm_timer(DUE.lease .. rec.name16)
    local session = find_session(rec.number)
    if session then
      let_go(session, rec.id)
    end
  elseif state == WAITING then
    if has(rec, FLAG.blocker) and rec.till > 0 then
      disarm_timer(DUE.wait .. rec.name16)
    end
  elseif state == RESUMABLE or state == BLOCKED then
    local session = find_session(rec.number)
    if state == RESUMABLE then
      disarm_timer(DUE.window .. rec.name16)
    elseif rec.till > 0 then
      disarm_timer(DUE.wait .. rec.name16)
    end
    if session then
      local what = state == RESUMABLE and 'resumable' or 'blocked'
      local member = state == RESUMABLE and place_of(rec)[2] or rec.name16
      session[what] = session[what] - call('ZREM', P .. what .. ':' .. int(rec.number), member)
      save_session(session)
    end
  end
end

function index(rec)
  local state = rec.state
  T[state == RESUMABLE and READY or state] = T[state == RESUMABLE and READY or state] + 1
  if state == READY then
    enqueue(rec)
  elseif state == DELAYED then
    arm_timer(DUE.start .. rec.name16, rec.till)
  elseif state == WAITING then
    -- The longest wait goes on when a session is gone.
    if has(rec, FLAG.blocker) and rec.till > 0 then
      arm_timer(DUE.wait .. rec.name16, rec.till)
    end
  elseif state == CLAIMED then
    arm_timer(DUE.lease .. rec.name16, rec.till)
    local session = find_session(rec.number)
    if session then
      hold_task(session, rec.id)
    end
  elseif state == RESUMABLE or state == BLOCKED then
    local session = find_session(rec.number)
    if session then
      local what = state == RESUMABLE and 'resumable' or 'blocked'
      local place = state == RESUMABLE and place_of(rec) or { 0, rec.name16 }
      session[what] = session[what] + call('ZADD', P .. what .. ':' .. int(rec.number), place[1], place[2])
      save_session(session)
    end
    if state == BLOCKED and rec.till > 0 then
      arm_timer(DUE.wait .. rec.name16, rec.till)
    end
    if state == RESUMABLE then
      if not has(rec, FLAG.awaited) then
        nudge(rec.number)
      end
      arm_timer(DUE.window .. rec.name16, rec.till)
    end
  end
end

-- Changes a task while it stands in no index.
function move(rec, state, change_it)
  unindex(rec)
  if change_it then
    change_it(rec)
  end
  rec.state = state
  touch(rec)
  index(rec)
end

-- A task can be done from now on, and counts as ready since then.
function make_ready(rec, since)
  unindex(rec)
  rec.since = since
  rec.key, rec.state = key_of(rec), READY
  touch(rec)
  index(rec)
end

-- A task is ready for whoever is eligible.
function open_to_all(rec)
  move(rec, READY, function() rec.assignee = '' end)
  tell(rec)
end

-- Makes a task wait for another one, which lends it its key.
function add_edge(rec, on, code)
  local other = find_task(on)
  table.insert(waits_of(rec), { on, code })
  write_waits(rec)
  if other then
    call('ZADD', lends_key(on), rec.key, rec.name16)
    with(other, FLAG.lends)
    touch(other)
    if rec.key < other.key then
      add_chore('rekey ' .. int(on))
    end
  end
end

-- Something that waits for a task does not lend it this key any more. Where tasks wait for each other, each may have the key of
-- the others, which they have from it: then all of them forget it before any gets another.
local function give_back(id, key)
  local first = call('ZRANGE', lends_key(id), 0, 0, 'WITHSCORES')
  local may_be_its_own = tonumber(first[2] or -1) == key
  urgent[#urgent + 1] = (may_be_its_own and 'reset ' or 'rekey ') .. int(id)
end

-- A task waits for nothing any more; what it had lent is given back.
function drop_edges(rec)
  if not has(rec, FLAG.waits) then
    return
  end
  local edges = waits_of(rec)
  rec.waits = {}
  write_waits(rec)
  for _, edge in ipairs(edges) do
    if call('ZREM', lends_key(edge[1]), rec.name16) == 1 then
      local other = find_task(edge[1])
      if other and other.key == rec.key then
        give_back(edge[1], rec.key)
      end
    end
  end
end

-- A task that waits for others has another key now.
function pass_on(rec, before_)
  if not has(rec, FLAG.waits) then
    return
  end
  for _, edge in ipairs(waits_of(rec)) do
    local other = find_task(edge[1])
    if other and call('ZSCORE', lends_key(edge[1]), rec.name16) then
      call('ZADD', lends_key(edge[1]), rec.key, rec.name16)
      if rec.key < other.key then
        add_chore('rekey ' .. int(edge[1]))
      elseif before_ == other.key then
        give_back(edge[1], before_)
      end
    end
  end
end

-- Gives a task the smallest key of what waits for it, or its own back.
local function rekey(rec)
  if not rec or is_finished(rec) then
    return
  end
  local old, new = rec.key, key_of(rec)
  if old ~= new then
    move(rec, rec.state, function() rec.key = new end)
    pass_on(rec, old)
  end
end

-- Gives a task its own key, and later the smallest of what waits for it.
local function reset(rec)
  if not rec or is_finished(rec) then
    return
  end
  local old, new = rec.key, order_key(rec.since, terms_of(rec).priority)
  if old ~= new then
    move(rec, rec.state, function() rec.key = new end)
    pass_on(rec, old)
    add_chore('rekey ' .. digits(rec))
  end
end

function put_on_hold(rec, because)
  move(rec, ON_HOLD, function() rec.till = because end)
  note('on_hold', rec, '"because":' .. int(because), 'MEDIUM')
  tell(rec)
end

-- A task is over.
function finish(rec, state, loss, extra)
  lose(rec, loss, extra)
  drop_edges(rec)
  unindex(rec)
  rec.state, rec.till = state, now
  touch(rec)
  T[state] = T[state] + 1
  if has(rec, FLAG.lends) then
    add_chore('release ' .. digits(rec))
  end
  if terms_of(rec).deadline > 0 then
    disarm_timer(DUE.deadline .. rec.name16)
  end
  leave_class(rec.class)
  T.ended = T.ended or {}
  T.ended[#T.ended + 1] = pack('>I7I7', now, rec.id)
  T.bytes = T.bytes + weigh_task(rec)
  if T.oldest == 0 then
    T.oldest = now
  end
end

-- A task is given up on: `attempts`, `fatal`, `overdue`, or `dependency`, and then which, or `deadlock`, and then the ring.
function fail(rec, cause, on)
  local params = '"failures":' .. int(rec.failures) .. ',"cause":"' .. cause .. '"' ..
    (cause == 'dependency' and ',"dependency":' .. int(on) or '')
  write(rec.name16 .. 'o', cmsgpack.pack({ cause, on or 0 }))
  with(rec, FLAG.outcome)
  finish(rec, FAILED, END.overdue)
  note('failed', rec, params, 'MEDIUM')
  tell(rec)
end

-- The help is there: the session that had the task may resume it first.
function offer_resumption(rec)
  note('unblocked', rec, '"session":"' .. rec.holder .. '","waited_for":' ..
    int(#answers_of(rec)))
  move(rec, RESUMABLE, function() rec.till = now + C.resume_window end)
  tell(rec)
end

-- A task goes on if there is nothing left to wait for.
function proceed(rec)
  if #waits_of(rec) > 0 then
    return
  elseif rec.state == WAITING then
    local start = terms_of(rec).start
    if start > now then
      move(rec, DELAYED, function() rec.till = start end)
    else
      make_ready(rec, now)
    end
  elseif rec.state == BLOCKED then
    if find_session(rec.number) then
      offer_resumption(rec)
    else
      -- Its session is gone, and others take it up.
      make_ready(rec, now)
      tell(rec)
    end
  end
end

-- If the session that had blocked a task is gone, whoever is eligible takes it up when the help is there.
function desert(rec)
  if not rec or rec.state ~= BLOCKED and rec.state ~= RESUMABLE or find_session(rec.number) then
    return
  end
  if rec.state == RESUMABLE then
    move(rec, READY)
  else
    move(rec, WAITING)
    proceed(rec)
  end
  tell(rec)
end

-- A task is finished; what depends on it hears of it.
local function settle_edge(rec, on)
  local done = find_task(on)
  done = done and done.state == DONE
  for nth, edge in ipairs(waits_of(rec)) do
    if edge[1] == on then
      table.remove(rec.waits, nth)
      write_waits(rec)
      if edge[2] == ON_FAILURE.fail and not done then
        fail(rec, 'dependency', on)
      elseif edge[2] == ON_FAILURE.hold and not done then
        put_on_hold(rec, on)
      else
        local wait = edge[2] == ON_FAILURE.run and wait_of(rec)
        if wait and wait.any and done then
          drop_edges(rec)
        elseif wait and wait.any then
          -- One way out less.
          deadlock.suspect(rec)
        end
        proceed(rec)
      end
      return
    end
  end
end

local function release_next(rec)
  -- One that was redriven meanwhile tells the rest when it is finished again.
  if not rec or not is_finished(rec) then
    return
  end
  local popped = call('ZPOPMIN', lends_key(rec.id))
  if not popped[1] then
    without(rec, FLAG.lends)
    touch(rec)
    return
  end
  -- The others after what follows from this one: a chain is as urgent as a crowd.
  add_chore('release ' .. digits(rec))
  local dependant = find_named(popped[1])
  if dependant then
    settle_edge(dependant, rec.id)
  end
end

local function sift_next(name)
  local session = named(name)
  local place = own_first(name, function(c)
    return not session or not may(Q.kinds[session.kind], c)
  end, function() return false end)
  if place then
    local rec = find_named(place[3])
    move(rec, rec.state, function() rec.assignee = '' end)
    add_chore('sift ' .. name)
  end
end

-- Does chores as far as this step may.
function work()
  while units > 0 do
    -- Those that come before all others, and those that earlier steps have left.
    local chore = table.remove(urgent)
    if not chore and T.chores > 0 then
      chore = call('LPOP', P .. 'chores')
      T.chores = chore and T.chores - 1 or 0
    end
    if not chore then
      chore = new_chores[next_chore]
      next_chore = next_chore + 1
    end
    if not chore then
      next_chore = #new_chores + 1
      return
    end
    local what, whom = string.match(chore, '^(%a+) (.+)$')
    if what == 'release' then
      release_next(find_task(tonumber(whom)))
    elseif what == 'rekey' then
      rekey(find_task(tonumber(whom)))
    elseif what == 'reset' then
      reset(find_task(tonumber(whom)))
    elseif what == 'desert' then
      desert(find_task(tonumber(whom)))
    else
      sift_next(whom)
    end
    units = units - 1
  end
end

function has_chores()
  return T.chores > 0 or new_chores[next_chore] ~= nil or #urgent > 0
end

-- Writes down what is left to do.
function save_chores()
  for from = next_chore, #new_chores, 1000 do
    call('RPUSH', P .. 'chores', unpack(new_chores, from, at_most(from + 999, #new_chores)))
  end
  for _, chore in ipairs(urgent) do
    call('LPUSH', P .. 'chores', chore)
  end
  T.chores = T.chores + #new_chores - next_chore + 1 + #urgent
  new_chores, next_chore, urgent = {}, 1, {}
end

end
