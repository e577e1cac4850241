-- tasks_unblock <task>
local function verb()
  open({ name_of(ARGV[5]) })
  begin_queues()
  local rec = find_named(name_of(ARGV[5]))
  if not rec then
    return { 'unknown_task', tonumber(ARGV[5]) }
  elseif rec.state ~= BLOCKED then
    return { 'ok', 0 }
  end
  drop_edges(rec)
  offer_resumption(rec)
  return { 'ok', 1 }
end
